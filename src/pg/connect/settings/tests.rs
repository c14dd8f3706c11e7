use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::error::Class;

/// A home folder, and variables.
struct Around {
    home: TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Around {
    fn new(variables: &[(&'static str, &str)]) -> Around {
        let variables = variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Around { home: tempfile::tempdir().expect("a folder"), variables }
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.home.path().join(name);
        fs::create_dir_all(path.parent().expect("below the home")).expect("a folder");
        fs::write(&path, content).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("private");
        path.display().to_string()
    }

    fn resolve_with(&self, url: &str, password_file: Option<&Path>) -> Result<Settings, Failure> {
        let variable = |name: &str| match name {
            "HOME" => Some(self.home.path().display().to_string()),
            "PGSYSCONFDIR" => Some("/nonexistent".to_owned()),
            name => self.variables.iter().find(|(set, _)| *set == name).map(|(_, value)| value.clone()),
        };
        Settings::resolve(url, password_file, &Surroundings { variable: &variable })
    }

    fn resolve(&self, url: &str) -> Result<Settings, Failure> {
        self.resolve_with(url, None)
    }
}

fn resolved(url: &str) -> Settings {
    Around::new(&[]).resolve(url).unwrap_or_else(|failure| panic!("{url}: {failure}"))
}

fn refused(url: &str) -> Failure {
    let failure = Around::new(&[]).resolve(url).err().unwrap_or_else(|| panic!("{url} is taken"));
    assert_eq!(failure.class, Class::Usage);
    failure
}

fn shown(settings: &Settings) -> String {
    let hosts: Vec<String> = settings.hosts.iter().map(Host::display).collect();
    format!("{}@{}/{}", settings.user, hosts.join(","), settings.dbname)
}

fn passwords(settings: &Settings) -> Vec<Option<&str>> {
    settings.hosts.iter().map(|host| host.password.as_deref()).collect()
}

#[test]
fn a_string_says_where_and_who() {
    for (url, where_and_who) in [
        ("postgres://bob@db01:5433/messages", "bob@db01:5433/messages"),
        ("host=db01 port=5433 user=bob dbname=messages", "bob@db01:5433/messages"),
        ("postgresql://bob@[::1]/messages", "bob@[::1]:5432/messages"),
        ("postgres://bob@%2Frun%2Fpg/m", "bob@/run/pg:5432/m"),
        ("postgres://bob@a:1,b:2/m", "bob@a:1,b:2/m"),
        ("host=a,b,c port=1 user=bob", "bob@a:1,b:1,c:1/bob"),
        ("host=a,b,c port=1,,3 user=bob", "bob@a:1,b:5432,c:3/bob"),
        ("host=a hostaddr=10.0.0.1 user=bob", "bob@a:5432/bob"),
        ("hostaddr=10.0.0.1 user=bob", "bob@10.0.0.1:5432/bob"),
    ] {
        assert_eq!(shown(&resolved(url)), where_and_who, "{url}");
    }
    let address = "10.0.0.1".parse().ok();
    let addressed = &resolved("host=a hostaddr=10.0.0.1 user=bob").hosts[0].place;
    assert_eq!(*addressed, Place::Tcp { name: "a".into(), address });
}

#[test]
fn what_the_string_leaves_out_comes_from_the_environment_or_by_rule() {
    let around = Around::new(&[("PGUSER", "carol"), ("PGHOST", "db02"), ("PGPORT", "1"), ("PGPASSWORD", "secret")]);
    let settings = around.resolve("postgres:///m").expect("resolved");
    assert_eq!(shown(&settings), "carol@db02:1/m");
    assert_eq!(passwords(&settings), [Some("secret")]);
    assert!(!settings.password_in_string);
    let settings = around.resolve("postgres://bob:own@db01:2").expect("resolved");
    assert_eq!((shown(&settings).as_str(), passwords(&settings)), ("bob@db01:2/bob", vec![Some("own")]));
    assert!(settings.password_in_string);
    let own = whoami::username().expect("a user");
    assert_eq!(shown(&resolved("host=db01 dbname=m")), format!("{own}@db01:5432/m"));
}

#[test]
fn string_then_password_file_then_service_then_environment_then_passfile() {
    let around = Around::new(&[("PGPASSWORD", "of the environment"), ("PGSERVICEFILE", "/nonexistent")]);
    let service = around.file("services", "[mine]\npassword=of the service\nhost=db03\nuser=bob\n[bare]\nuser=bob\n");
    let passfile = around.file("passes", "*:*:*:*:of the passfile\n");
    let file = around.file("password", "of the file\n");
    let url =
        |service_name: &str| format!("host=db01 passfile={passfile} service={service_name} servicefile={service}");
    let password = |url: &str, file: Option<&str>| {
        let settings = around.resolve_with(url, file.map(Path::new)).expect("resolved");
        passwords(&settings)[0].map(str::to_owned)
    };
    assert_eq!(password(&(url("mine") + " password=own"), Some(&file)).as_deref(), Some("own"));
    assert_eq!(password(&url("mine"), Some(&file)).as_deref(), Some("of the file"));
    assert_eq!(password(&url("mine"), None).as_deref(), Some("of the service"));
    assert_eq!(password(&url("bare"), None).as_deref(), Some("of the environment"));
    let bare = Around::new(&[]);
    let settings = bare.resolve(&format!("host=db01 passfile={passfile}")).expect("resolved");
    assert_eq!(passwords(&settings), [Some("of the passfile")]);
    let settings = around.resolve(&url("mine").replace("host=db01", "")).expect("resolved");
    assert_eq!(shown(&settings), "bob@db03:5432/bob", "the service's host");
}

#[test]
fn a_passfile_of_the_home_has_a_password_per_host() {
    let around = Around::new(&[]);
    around.file(
        ".pgpass",
        "a:1:m:bob:one\nb:*:*:*:two\nlocalhost:*:*:*:three\n/run/pg:*:*:*:four\n10.0.0.1:*:*:*:five\n",
    );
    let found = |url: &str| {
        let settings = around.resolve(url).expect("resolved");
        passwords(&settings).into_iter().map(|password| password.unwrap_or("none").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found("host=a,b,c port=1,2,3 user=bob dbname=m"), ["one", "two", "none"]);
    assert_eq!(found("user=bob"), ["three"], "the socket that is found without a name");
    assert_eq!(found("user=bob host=/run/pg"), ["four"]);
    assert_eq!(found("user=bob hostaddr=10.0.0.1"), ["five"]);
    assert_eq!(found("user=bob host=a hostaddr=10.0.0.1"), ["none"], "a host's name stands above its address");
}

#[test]
fn a_service_of_the_environment_is_looked_up_in_the_home() {
    let around = Around::new(&[("PGSERVICE", "mine")]);
    around.file(".pg_service.conf", "[mine]\nhost=db04\nuser=dave\nsslmode=require\n");
    let settings = around.resolve("dbname=m").expect("resolved");
    assert_eq!(shown(&settings), "dave@db04:5432/m");
    assert_eq!(settings.encryption.mode, SslMode::Require);
    let unknown = Around::new(&[("PGSERVICE", "mine")]).resolve("dbname=m").err().expect("no such service");
    assert!(unknown.what.contains("\"mine\""), "{}", unknown.what);
}

#[test]
fn modes_of_tls_are_libpqs() {
    assert_eq!(resolved("host=db01").encryption.mode, SslMode::Prefer);
    assert!(resolved("host=/run/pg sslmode=require").encryption.tls.is_none(), "sockets are not encrypted");
    assert!(resolved("host=db01 sslmode=disable").encryption.tls.is_none());
    assert_eq!(resolved("host=db01 sslrootcert=system").encryption.mode, SslMode::VerifyFull);
    for url in [
        "host=db01 sslrootcert=system sslmode=require",
        "host=db01 sslnegotiation=direct",
        "host=db01 sslmode=verify-ca",
        "host=db01 sslmode=verify-full sslrootcert=/nonexistent",
        "host=db01 sslmode=always",
        "host=db01 channel_binding=yes",
        "host=db01 ssl_max_protocol_version=TLSv1.1",
        "host=db01 ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2",
        "host='db 01' sslmode=require",
        "host=db01 gssencmode=require",
    ] {
        refused(url);
    }
    for url in ["host=db01 gssencmode=prefer", "host=db01 ssl_min_protocol_version=TLSv1.3", "host='db 01'"] {
        resolved(url);
    }
}

#[test]
fn a_root_certificate_of_the_home_must_be_one() {
    let around = Around::new(&[]);
    around.file(".postgresql/root.crt", "none");
    assert!(around.resolve("host=db01 sslmode=require").is_err());
    assert!(around.resolve("host=/run/pg").is_ok());
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let around = Around::new(&[]);
    let (certificate, key) = (around.file("own.crt", ""), around.file("own.key", ""));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=bob", "-keyout", &key, "-out"])
        .arg(&certificate)
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let url = format!("host=db01 sslmode=require sslcert={certificate} sslkey={key}");
    around.resolve(&url).expect("a certificate and its key");
    for mode in [0o644, 0o660, 0o604] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("changed");
        let failure = around.resolve(&url).err().unwrap_or_else(|| panic!("{mode:o} is taken"));
        assert!(failure.what.contains("own.key") && failure.what.contains("others"), "{}", failure.what);
    }
    assert!(around.resolve(&(url + " sslcertmode=disable")).is_ok(), "it is not looked at");
}

#[test]
fn numbers_are_numbers_and_lists_of_one_length() {
    for url in [
        "port=0",
        "port=65536",
        "host=a port=x",
        "host=a,b port=1,2,3",
        "host=a,b hostaddr=10.0.0.1",
        "hostaddr=db01",
        "connect_timeout=soon",
        "keepalives_idle=1.5",
        "tcp_user_timeout=-1",
        "target_session_attrs=writable",
        "host=@abstract",
    ] {
        refused(url);
    }
    let limit = |url: &str| resolved(url).connect_timeout.map(|limit| limit.as_secs());
    assert_eq!(limit(""), Some(10));
    assert_eq!(limit("connect_timeout=1"), Some(2), "as with libpq");
    assert_eq!((limit("connect_timeout=0"), limit("connect_timeout=-1")), (None, None));
    assert!(!resolved("keepalives=0").keepalives.enabled);
    assert_eq!(resolved("tcp_user_timeout=0").keepalives.user_timeout_millis, None);
    assert_eq!(resolved("keepalives_count=7").keepalives.probes, Some(7));
}

#[test]
fn a_server_is_what_is_looked_for_by_its_recovery_and_its_writes() {
    use TargetSession::{Any, PreferStandby, Primary, ReadOnly, ReadWrite, Standby};
    let primary = [Any, ReadWrite, Primary];
    let read_only_primary = [Any, ReadOnly, Primary];
    let standby = [Any, ReadOnly, Standby, PreferStandby];
    for target in [Any, ReadWrite, ReadOnly, Primary, Standby, PreferStandby] {
        assert_eq!(target.fits(false, false), primary.contains(&target), "{target:?}");
        assert_eq!(target.fits(false, true), read_only_primary.contains(&target), "{target:?}");
        assert_eq!(target.fits(true, true), standby.contains(&target), "{target:?}");
    }
    assert_eq!(PreferStandby.rounds(), [PreferStandby, Any]);
}

#[test]
fn no_failure_repeats_a_part_of_a_password() {
    for url in [
        "postgres://bob:hunter2@db01:port/m",
        "postgres://bob@db01:hunter2/m",
        "postgres://bob:hunter2@a,b/m?port=1,2,3",
        "postgres://bob:hunter2@db01/m?connect_timeout=hunter2",
        "postgres://bob:hunter2@db01/m?sslmode=hunter2",
        "postgres://bob:hunter2@db01/m?hostaddr=hunter2",
    ] {
        let told = format!("{:?}", refused(url));
        assert!(!told.contains("hunter2"), "{told}");
    }
    let endpoint = super::super::Endpoint::parse("postgres://bob:hunter2@db01/m").expect("a connection string");
    assert!(!format!("{endpoint:?} {endpoint}").contains("hunter2"));
}
