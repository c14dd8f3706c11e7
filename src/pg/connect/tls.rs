//! TLS by libpq's rules, done by rustls: whom to trust, who we are, and what binds a login to the channel.
//!
//! Where rustls is stricter than OpenSSL the stricter rule stands and the error says so: keys and certificates as of
//! TLS 1.2, certificates of X.509 version 3. Two habits of PostgreSQL's users are kept that it does not know: a
//! certificate without alternative names is for its common name, and a server's own certificate may be its root.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::ParsedCertificate;
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::certificate::{self, KeyPermissions};
use super::settings::Negotiation;
use super::usage;
use crate::error::Failure;
use crate::pg::PgError;

/// What a server behind a proxy that splits by protocol is asked for; PostgreSQL 17 and later want it of
/// `sslnegotiation=direct`.
const PROTOCOL: &[u8] = b"postgresql";

/// Which servers are accepted.
pub(super) enum Trust {
    /// Whoever answers: the connection is encrypted, with whom is not known.
    Anyone,
    /// Those whose certificate is signed by an authority.
    Authorities { authorities: Authorities, revoked: Option<PathBuf>, name: Name },
}

/// Who signs certificates.
pub(super) enum Authorities {
    /// Whom the operating system trusts.
    System,
    /// The certificates of a PEM file.
    File(PathBuf),
}

/// Must the certificate be for the host that was asked for?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Checked,
    Ignored,
}

/// `sslcert` and `sslkey`
pub(super) struct ClientCertificate {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// Which versions are spoken.
pub(super) struct Versions {
    pub(super) tls12: bool,
    pub(super) tls13: bool,
}

/// What TLS connections are made with. Cheap to clone.
#[derive(Clone)]
pub(in crate::pg) struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Reads what it needs from files.
    ///
    /// # Errors
    /// Class Usage when one cannot be read or used.
    pub(super) fn new(
        trust: Trust,
        certificate: Option<&ClientCertificate>,
        versions: &Versions,
        server_name_indication: bool,
    ) -> Result<Tls, Failure> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let spoken = [(versions.tls13, &TLS13), (versions.tls12, &TLS12)];
        let spoken: Vec<_> = spoken.into_iter().filter_map(|(wanted, version)| wanted.then_some(version)).collect();
        let verifier = Arc::new(Verifier::new(trust, &provider)?);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&spoken)
            .map_err(|error| usage(format!("TLS cannot be set up: {error}")))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match certificate.filter(|own| own.certificate.exists()) {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = certificates(&own.certificate)?;
                let key = private_key(&own.key)?;
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    usage(format!(
                        "the client certificate {} and the key {} do not go together: {error}",
                        own.certificate.display(),
                        own.key.display()
                    ))
                })?
            }
        };
        config.enable_sni = server_name_indication;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        // A resumed session is worth nothing to connections that last a run.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Tls(Arc::new(config)))
    }

    /// As the library wants it.
    pub(super) fn configuration(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }

    /// The state of a new connection to the server of that name.
    ///
    /// # Errors
    /// Those of the library.
    pub(in crate::pg) fn connection(&self, name: ServerName<'static>) -> Result<ClientConnection, PgError> {
        ClientConnection::new(Arc::clone(&self.0), name).map_err(|error| PgError::Tls(words(&error)))
    }
}

/// Where TLS comes first, nothing but the protocol that both name tells PostgreSQL from another service with the same
/// certificate.
///
/// # Errors
/// When the server named none, or another.
pub(super) fn check_protocol(connection: &ClientConnection, negotiation: Negotiation) -> Result<(), PgError> {
    match (negotiation, connection.alpn_protocol()) {
        (Negotiation::Direct, chosen) if chosen != Some(PROTOCOL) => Err(PgError::Tls(
            "the server does not do PostgreSQL by sslnegotiation=direct, which needs release 17".into(),
        )),
        _ => Ok(()),
    }
}

/// A host as the name that certificates are for.
///
/// # Errors
/// Class Usage when no certificate could be.
pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, Failure> {
    // A name that ends in a dot is the same name.
    let host = host.strip_suffix('.').unwrap_or(host);
    ServerName::try_from(host.to_owned())
        .map_err(|_| usage(format!("{host:?} is no name that a server's certificate could be for")))
}

/// A failure of TLS in words that say what to look at.
pub(in crate::pg) fn words(error: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(problem) = error else {
        return match error {
            rustls::Error::AlertReceived(alert) => {
                format!("the server ended the TLS handshake: {alert:?}")
            }
            other => format!("TLS failed: {other}"),
        };
    };
    let problem = match problem {
        CertificateError::UnknownIssuer => "is signed by an authority that is not trusted (sslrootcert)".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "is not valid yet".to_owned(),
        CertificateError::Revoked => "is revoked (sslcrl)".to_owned(),
        CertificateError::UnknownRevocationStatus => "is not covered by the revocation list (sslcrl)".to_owned(),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is for another host (sslmode=verify-full)".to_owned()
        }
        CertificateError::ApplicationVerificationFailure => {
            "is of X.509 version 1, which is not verified: have it signed again with extensions, such as \
             subjectAltName"
                .to_owned()
        }
        other => format!("is not accepted: {other}"),
    };
    format!("the server's certificate {problem}")
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let unusable = |why: String| usage(format!("the certificate file {} cannot be used: {why}", path.display()));
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(error.to_string()))?;
    if certificates.is_empty() { Err(unusable("it holds no certificate".into())) } else { Ok(certificates) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Failure> {
    let unusable = |why: String| usage(format!("the private key {} cannot be used: {why}", path.display()));
    match certificate::key_permissions(path).map_err(|error| unusable(error.to_string()))? {
        KeyPermissions::Private => {}
        KeyPermissions::Open => {
            return Err(unusable("others may read it".into())
                .next("chmod 0600 the file; one that root owns may be readable for its group, 0640"));
        }
    }
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        unusable(error.to_string()).next("it must be a PEM file without a passphrase: openssl pkey -in KEY")
    })
}

fn roots(authorities: &Authorities) -> Result<Vec<CertificateDer<'static>>, Failure> {
    match authorities {
        Authorities::File(path) => certificates(path),
        Authorities::System => {
            let found = rustls_native_certs::load_native_certs();
            match (found.certs.is_empty(), found.errors.first()) {
                (false, _) => Ok(found.certs),
                (true, Some(error)) => Err(usage(format!("the system's trusted certificates cannot be read: {error}"))),
                (true, None) => Err(usage("the system has no trusted certificates")
                    .next("install ca-certificates, or name a file with sslrootcert")),
            }
        }
    }
}

/// Judges the certificate that a server shows. That it holds the key is checked whomever is trusted: what a login is
/// bound to would be worth nothing otherwise.
#[derive(Debug)]
struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    authorities: Option<Chain>,
}

#[derive(Debug)]
struct Chain {
    verifier: Arc<WebPkiServerVerifier>,
    /// Roots that are accepted as a server's own certificate.
    own_roots: Vec<CertificateDer<'static>>,
    name: Name,
}

impl Verifier {
    fn new(trust: Trust, provider: &Arc<CryptoProvider>) -> Result<Verifier, Failure> {
        let algorithms = provider.signature_verification_algorithms;
        let Trust::Authorities { authorities, revoked, name } = trust else {
            return Ok(Verifier { algorithms, authorities: None });
        };
        let roots = roots(&authorities)?;
        let mut store = RootCertStore::empty();
        // Of the system's, some may be too old to be understood.
        store.add_parsable_certificates(roots.iter().cloned());
        let mut builder = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider));
        let mut lists_are_set = false;
        if let Some(path) = revoked {
            let unusable = |why: String| usage(format!("the revocation list {} cannot be used: {why}", path.display()));
            let lists = CertificateRevocationListDer::pem_file_iter(&path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| unusable(error.to_string()))?;
            if lists.is_empty() {
                return Err(unusable("it holds no list in PEM form".into()));
            }
            lists_are_set = true;
            builder = builder.with_crls(lists).enforce_revocation_expiration();
        }
        let verifier = builder
            .build()
            .map_err(|error| usage(format!("the trusted certificates or revocation lists cannot be used: {error}")))?;
        // A root that is a server's own certificate is in no list, and with lists everything must be.
        let own_roots = if lists_are_set { Vec::new() } else { roots };
        Ok(Verifier { algorithms, authorities: Some(Chain { verifier, own_roots, name }) })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.authorities else { return Ok(ServerCertVerified::assertion()) };
        let judged = chain.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let error = match judged {
            Ok(verified) => return Ok(verified),
            Err(error) => error,
        };
        // The library looks at the name after everything else.
        let wrong_name = matches!(
            error,
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
            )
        );
        if !wrong_name {
            if certificate::is_version_1(end_entity) {
                return Err(CertificateError::ApplicationVerificationFailure.into());
            }
            // A root as the server's own certificate: the library wants authorities to be nothing else.
            if !chain.own_roots.iter().any(|root| root == end_entity) {
                return Err(error);
            }
            certificate::check_validity(end_entity, now)?;
        }
        if chain.name == Name::Ignored {
            return Ok(ServerCertVerified::assertion());
        }
        let named = rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name);
        match named {
            Err(_)
                if certificate::common_name_is_for(end_entity, server_name)
                    || certificate::has_address_as_name(end_entity, server_name) =>
            {
                Ok(ServerCertVerified::assertion())
            }
            named => named.map(|()| ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match certificate::version_1_key(certificate) {
            Some(key) => verify_tls13_signature_with_raw_key(
                message,
                &SubjectPublicKeyInfoDer::from(key),
                signed,
                &self.algorithms,
            ),
            None => verify_tls13_signature(message, certificate, signed, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
