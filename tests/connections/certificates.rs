//! Authorities and what they signed, made by the openssl command line once per test process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// Certificates `NAME.pem` with their keys `NAME.key`, and the list of revoked ones, `revoked.crl`.
#[derive(Debug)]
pub(crate) struct Certificates(TempDir);

/// Server certificates that a client of "localhost" has nothing against, when it trusts `authority.pem`.
pub(crate) const GOOD: [&str; 4] = ["right", "rsa", "sha384", "chained"];
/// Those that something is odd or wrong with.
pub(crate) const ODD: [&str; 12] = [
    "self_signed",
    "unknown",
    "expired",
    "wrong_name",
    "only_common_name",
    "wrong_common_name",
    "common_name_beside_address",
    "address_as_name",
    "wildcard",
    "partial_wildcard",
    "for_clients",
    "revoked",
];

const ECDSA: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
const RSA: &str = "-newkey rsa:2048 -nodes";

/// Name, key, subject, extensions (of the file of that name), further options.
const OF_THE_AUTHORITY: [(&str, &str, &str, &str, &str); 17] = [
    ("right", ECDSA, "/CN=server", "subjectAltName = DNS:localhost, IP:127.0.0.1", "-days 2"),
    ("rsa", RSA, "/CN=server", "subjectAltName = DNS:localhost, IP:127.0.0.1", "-days 2"),
    ("sha384", ECDSA, "/CN=server", "subjectAltName = DNS:localhost, IP:127.0.0.1", "-days 2 -sha384"),
    ("expired", ECDSA, "/CN=server", "subjectAltName = DNS:localhost, IP:127.0.0.1", "-days -1"),
    ("wrong_name", ECDSA, "/CN=localhost", "subjectAltName = DNS:elsewhere.test, IP:127.0.0.2", "-days 2"),
    ("only_common_name", ECDSA, "/CN=localhost", "basicConstraints = CA:FALSE", "-days 2"),
    // What `openssl x509 -req` makes where no extensions are asked for, as in PostgreSQL's own manual.
    ("version_1", ECDSA, "/CN=localhost", "", "-days 2"),
    ("wrong_common_name", ECDSA, "/CN=elsewhere.test", "basicConstraints = CA:FALSE", "-days 2"),
    ("common_name_beside_address", ECDSA, "/CN=localhost", "subjectAltName = IP:127.0.0.1", "-days 2"),
    ("address_as_name", ECDSA, "/CN=server", "subjectAltName = DNS:127.0.0.1", "-days 2"),
    ("wildcard", ECDSA, "/CN=server", "subjectAltName = DNS:*.example.test", "-days 2"),
    ("partial_wildcard", ECDSA, "/CN=server", "subjectAltName = DNS:d*.example.test, DNS:localhost", "-days 2"),
    (
        "for_clients",
        ECDSA,
        "/CN=server",
        "subjectAltName = DNS:localhost, IP:127.0.0.1\nextendedKeyUsage = clientAuth",
        "-days 2",
    ),
    ("revoked", ECDSA, "/CN=server", "subjectAltName = DNS:localhost, IP:127.0.0.1", "-days 2"),
    ("client", ECDSA, "/CN=with_certificate", "extendedKeyUsage = clientAuth", "-days 2"),
    ("client_rsa", RSA, "/CN=with_certificate", "extendedKeyUsage = clientAuth", "-days 2"),
    ("other_client", ECDSA, "/CN=somebody_else", "extendedKeyUsage = clientAuth", "-days 2"),
];

/// All of them.
pub(crate) fn certificates() -> &'static Certificates {
    static MADE: OnceLock<Certificates> = OnceLock::new();
    MADE.get_or_init(Certificates::make)
}

impl Certificates {
    fn make() -> Certificates {
        let made = Certificates(TempDir::with_prefix("pgslice-certificates-").expect("create a temporary folder"));
        for authority in ["authority", "stranger"] {
            made.openssl(&format!(
                "req -x509 {ECDSA} -keyout {authority}.key -out {authority}.pem -days 2 -subj /CN={authority}"
            ));
        }
        for (name, key, subject, extensions, options) in OF_THE_AUTHORITY {
            made.sign("authority", name, key, subject, extensions, options);
        }
        let both = "subjectAltName = DNS:localhost, IP:127.0.0.1";
        made.sign("stranger", "unknown", ECDSA, "/CN=server", both, "-days 2");
        made.sign(
            "stranger",
            "unknown_client",
            ECDSA,
            "/CN=with_certificate",
            "basicConstraints = CA:FALSE",
            "-days 2",
        );
        made.sign("authority", "intermediate", ECDSA, "/CN=intermediate", "basicConstraints = CA:TRUE", "-days 2");
        made.sign("intermediate", "chained", ECDSA, "/CN=server", both, "-days 2");
        let chain = [made.read("chained.pem"), made.read("intermediate.pem")].concat();
        fs::write(made.path("chained.pem"), chain).expect("write a chain");
        made.openssl(&format!(
            "req -x509 {ECDSA} -keyout self_signed.key -out self_signed.pem -days 2 -subj /CN=server \
             -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE"
        ));
        made.revoke();
        made
    }

    fn sign(&self, authority: &str, name: &str, key: &str, subject: &str, extensions: &str, options: &str) {
        self.openssl(&format!("req {key} -keyout {name}.key -out {name}.csr -subj {subject}"));
        let mut extension_file = String::new();
        if !extensions.is_empty() {
            fs::write(self.path("extensions"), extensions).expect("write a file");
            "-extfile extensions".clone_into(&mut extension_file);
        }
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -out {name}.pem \
             {extension_file} {options}"
        ));
    }

    fn revoke(&self) {
        let list = "[ca]\ndefault_ca = list\n[list]\ndatabase = index\ncrlnumber = crlnumber\ndefault_md = sha256\n\
                    default_crl_days = 2\n";
        fs::write(self.path("list.conf"), list).expect("write a file");
        fs::write(self.path("index"), "").expect("write a file");
        fs::write(self.path("crlnumber"), "01\n").expect("write a file");
        let ca = "ca -config list.conf -cert authority.pem -keyfile authority.key";
        self.openssl(&format!("{ca} -revoke revoked.pem"));
        self.openssl(&format!("{ca} -gencrl -out revoked.crl"));
    }

    /// The folder that they lie in.
    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("read a certificate or key")
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.folder())
            .stdin(Stdio::null())
            .output()
            .expect("run openssl, which scripts/install-debian installs");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
