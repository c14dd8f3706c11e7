//! What libpq reads in certificates and keys, and rustls does not. Pure but for the look at a key's permissions.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error};
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

fn parsed(certificate: &CertificateDer<'_>) -> Option<Certificate> {
    Certificate::from_der(certificate).ok()
}

/// Does it have no extensions, and no place for them?
pub(super) fn is_version_1(certificate: &CertificateDer<'_>) -> bool {
    parsed(certificate).is_some_and(|parsed| parsed.tbs_certificate().version() == Version::V1)
}

/// The public key of a certificate that rustls does not read because of its version.
pub(super) fn version_1_key(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = parsed(certificate).filter(|parsed| parsed.tbs_certificate().version() == Version::V1)?;
    parsed.tbs_certificate().subject_public_key_info().to_der().ok()
}

/// Is `now` within the certificate's time?
///
/// # Errors
/// When it is not.
pub(super) fn check_validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let parsed = parsed(certificate).ok_or(CertificateError::BadEncoding)?;
    let validity = parsed.tbs_certificate().validity();
    let now_secs = now.as_secs();
    if now_secs < validity.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now_secs > validity.not_after.to_unix_duration().as_secs() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// Is the certificate's common name that of the host? Only where it has no alternative name of the host's
/// kind, as libpq has it (<https://www.postgresql.org/docs/current/libpq-ssl.html>).
pub(super) fn common_name_is_for(certificate: &CertificateDer<'_>, host: &ServerName<'_>) -> bool {
    let Some(parsed) = parsed(certificate) else { return false };
    let alternatives = parsed.tbs_certificate().get_extension::<SubjectAltName>();
    let of_its_kind = |name: &GeneralName| match host {
        ServerName::IpAddress(_) => matches!(name, GeneralName::IpAddress(_)),
        _ => matches!(name, GeneralName::DnsName(_)),
    };
    let has_alternatives = match alternatives {
        Ok(Some((_, SubjectAltName(names)))) => names.iter().any(of_its_kind),
        Ok(None) => false,
        Err(_) => true,
    };
    if has_alternatives {
        return false;
    }
    let Ok(Some(common_name)) = parsed.tbs_certificate().subject().common_name() else { return false };
    name_matches(&common_name.value(), host)
}

/// Does the certificate have the host's address where it has names? libpq takes that for the address.
pub(super) fn has_address_as_name(certificate: &CertificateDer<'_>, host: &ServerName<'_>) -> bool {
    let Some(parsed) = parsed(certificate).filter(|_| matches!(host, ServerName::IpAddress(_))) else { return false };
    let Ok(Some((_, SubjectAltName(names)))) = parsed.tbs_certificate().get_extension() else { return false };
    names.iter().any(|name| matches!(name, GeneralName::DnsName(name) if name.as_str() == host.to_str()))
}

/// A name of a certificate against a host: letters of either case, and `*.` for one label of a name.
fn name_matches(pattern: &str, host: &ServerName<'_>) -> bool {
    let is_name = matches!(host, ServerName::DnsName(_));
    let host = host.to_str();
    if pattern.eq_ignore_ascii_case(&host) {
        return true;
    }
    match (pattern.strip_prefix("*."), host.split_once('.')) {
        (Some(domain), Some((label, rest))) if is_name => {
            !label.is_empty() && domain.contains('.') && domain.eq_ignore_ascii_case(rest)
        }
        _ => false,
    }
}

/// The hash of a server's certificate that SCRAM binds a login to: `tls-server-end-point` of RFC 5929. `None` where the
/// certificate's signature has no hash of its own, such as Ed25519.
pub(super) fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let algorithm = parsed(certificate)?.signature_algorithm().oid.to_string();
    Some(match algorithm.as_str() {
        // MD5 and SHA-1 with RSA, SHA-1 with ECDSA: SHA-256 stands in for what is too weak. SHA-256 with RSA and ECDSA.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.10045.4.1"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.3.2" => Sha256::digest(certificate).to_vec(),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Sha384::digest(certificate).to_vec(),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Sha512::digest(certificate).to_vec(),
        _ => return None,
    })
}

/// Who may read a private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyPermissions {
    /// Its owner; or root, which owns it, and a group.
    Private,
    /// Others too.
    Open,
}

/// libpq's rule: nobody else where the user owns the key, at most a group's reading where root does.
///
/// # Errors
/// When the file cannot be looked at.
pub(super) fn key_permissions(path: &Path) -> io::Result<KeyPermissions> {
    let metadata = fs::metadata(path)?;
    let forbidden = if metadata.uid() == 0 { 0o027 } else { 0o077 };
    Ok(if metadata.mode() & forbidden == 0 { KeyPermissions::Private } else { KeyPermissions::Open })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_label() {
        for (pattern, host, matches) in [
            ("db01.example.org", "DB01.example.org", true),
            ("*.example.org", "db01.example.org", true),
            ("*.example.org", "a.db01.example.org", false),
            ("*.example.org", "example.org", false),
            ("*.org", "example.org", false),
            ("db*.example.org", "db01.example.org", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("*.0.0.1", "10.0.0.1", false),
            ("", "db01", false),
        ] {
            let host = ServerName::try_from(host).expect("a name");
            assert_eq!(name_matches(pattern, &host), matches, "{pattern} {host:?}");
        }
    }
}
