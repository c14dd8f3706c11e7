//! Addresses: what a feed's url may be, and where a redirect may lead.

use std::net::IpAddr;

use reqwest::Url;

use crate::config::AllowHttp;
use crate::error::{Class, Failure};

/// The address of a feed, without trailing slashes in its path (`https://host/` keeps the one that it must have).
///
/// # Errors
/// Class Usage for what is no http(s) URL, or has more to it than host, port and path. No text of a URL that may hold
/// credentials is repeated.
pub(super) fn parse(url: &str, allow_http: AllowHttp) -> Result<Url, Failure> {
    let refused = |what: &str| Failure::new(Class::Usage, what);
    let example = "write it as https://dumps.example.org/feed";
    let mut address = Url::parse(url).map_err(|_| refused("store.url is not a URL").next(example))?;
    if !matches!(address.scheme(), "http" | "https") || address.host_str().is_none_or(str::is_empty) {
        return Err(refused("store.url is not an http(s) address").next(example));
    }
    if !address.username().is_empty() || address.password().is_some() {
        return Err(refused("store.url holds a user name or a password, which pgslice does not send")
            .meaning("it is not repeated here, and nothing was asked of the server")
            .next("leave it out; a feed over http(s) is readable by whoever can reach it"));
    }
    if address.query().is_some() || address.fragment().is_some() {
        return Err(refused("store.url has a query (?…) or a fragment (#…), and objects are looked for below a path")
            .next(example));
    }
    if address.scheme() == "http" && allow_http == AllowHttp::No {
        return Err(refused(
            "store.url is an http:// address: whoever stands on the way could read and change the feed",
        )
        .meaning("nothing was read; digests prove that a feed is whole, not whose it is")
        .next("use https://, or set allow-http = true in [store] if the way is safe"));
    }
    let path = address.path().trim_end_matches('/').to_owned();
    address.set_path(&path);
    Ok(address)
}

/// Does the address name this very machine? No proxy is asked for it.
pub(super) fn is_loopback(address: &Url) -> bool {
    let host = address.host_str().unwrap_or_default();
    host == "localhost"
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Where a redirect from `from` to `location` (the header's value, perhaps relative) leads, if it is followed: to the
/// same scheme, host and port, or from http:// to https:// on the same host.
///
/// # Errors
/// Why it is not, with the host that it names and nothing else of it: what follows may be a signed address.
pub(super) fn follow(from: &Url, location: &str) -> Result<Url, Failure> {
    let refused = |what: String| Failure::new(Class::Other, what);
    let to = from.join(location).map_err(|_| refused("the server redirects to what is no address".to_owned()))?;
    let from_port = from.port_or_known_default();
    let stays = from.host_str() == to.host_str()
        && match (from.scheme(), to.scheme()) {
            ("http", "https") => true,
            (one, other) => one == other && from_port == to.port_or_known_default(),
        };
    if !stays {
        let port = to.port().map(|port| format!(":{port}")).unwrap_or_default();
        let target = format!("{}://{}{port}", to.scheme(), to.host_str().unwrap_or_default());
        return Err(refused(format!("the server redirects to {target}, which is not followed"))
            .meaning("a login page or a captive portal may stand before the feed, or the feed has moved")
            .next("open store.url in a browser; if the feed has moved for good, write its new address"));
    }
    if !to.username().is_empty() || to.password().is_some() {
        return Err(refused("the server redirects to an address with a user name, which is not followed".to_owned()));
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Url {
        parse(url, AllowHttp::Yes).expect("an address")
    }

    #[test]
    fn trailing_slashes_make_no_difference() {
        for (given, expected) in [
            ("https://host", "https://host/"),
            ("https://host/", "https://host/"),
            ("https://host//", "https://host/"),
            ("https://host:8443/a/feed/", "https://host:8443/a/feed"),
            ("HTTPS://Host:443/Feed//", "https://host/Feed"),
            ("http://[::1]:8080/a b", "http://[::1]:8080/a%20b"),
        ] {
            assert_eq!(address(given).as_str(), expected, "{given}");
        }
    }

    #[test]
    fn http_needs_the_word_of_the_operator() {
        let refusal = parse("http://host/feed", AllowHttp::No).expect_err("refused");
        assert_eq!(refusal.class, Class::Usage);
        assert!(refusal.what.contains("change the feed"), "{}", refusal.what);
        let next = refusal.next.expect("a next step");
        assert!(next.contains("https://") && next.contains("allow-http = true"), "{next}");
        assert!(parse("https://host/feed", AllowHttp::No).is_ok());
    }

    #[test]
    fn what_may_hold_a_secret_is_refused_and_not_repeated() {
        for url in [
            "https://user:secret@host/feed",
            "https://secret@host/feed",
            "https://:secret@host/feed",
            "https://host/feed?token=secret",
            "https://host/feed#secret",
            "https://host/feed?",
            "https://user:secret@/feed",
            "ftp://user:secret@host/feed",
            "secret",
        ] {
            let refusal = parse(url, AllowHttp::Yes).expect_err(url);
            assert_eq!(refusal.class, Class::Usage, "{url}");
            assert!(refusal.next.is_some(), "{url}");
            assert!(!format!("{refusal:?}").contains("secret"), "{refusal:?}");
        }
    }

    #[test]
    fn this_machine_is_known_by_its_addresses() {
        for own in ["http://127.0.0.1:1/", "http://localhost/", "http://[::1]/", "http://[::ffff:127.0.0.1]/"] {
            assert!(is_loopback(&address(own)), "{own}");
        }
        for other in ["http://128.0.0.1/", "http://localhost.example/", "http://[::2]/", "http://10.0.0.1/"] {
            assert!(!is_loopback(&address(other)), "{other}");
        }
    }

    #[test]
    fn redirects_stay_on_their_host_and_never_leave_https() {
        for (from, location, to) in [
            ("https://host/feed.json", "/other/feed.json", "https://host/other/feed.json"),
            ("https://host/a/feed.json", "b.json", "https://host/a/b.json"),
            ("https://host/feed.json", "https://HOST:443/x?token=1", "https://host/x?token=1"),
            ("http://host:8080/x", "http://host:8080/y", "http://host:8080/y"),
            ("http://host/x", "https://host/x", "https://host/x"),
            ("http://host:8080/x", "https://host:8443/x", "https://host:8443/x"),
        ] {
            assert_eq!(follow(&address(from), location).expect(location).as_str(), to, "{from}");
        }
        for (from, location, named) in [
            ("https://host/x", "https://other/x?secret", "https://other,"),
            ("https://host/x", "//other:8443/x?secret", "https://other:8443,"),
            ("https://host/x", "https://sub.host/secret", "https://sub.host,"),
            ("https://host/x", "https://host:8443/secret", "https://host:8443,"),
            ("https://host/x", "http://host/secret", "http://host,"),
            ("https://host/x", "ftp://host/secret", "ftp://host,"),
            ("https://host/x", "https://user:secret@other/", "https://other,"),
            ("https://host/x", "https://user:secret@host/x", "user name"),
            ("https://host/x", "https://[", "no address"),
        ] {
            let refusal = follow(&address(from), location).expect_err(location);
            assert!(refusal.what.contains(named), "{}", refusal.what);
            assert!(!format!("{refusal:?}").contains("secret"), "{refusal:?}");
        }
    }
}
