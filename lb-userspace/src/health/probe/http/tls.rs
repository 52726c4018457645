//! TLS of the checks: 1.2 and 1.3, by rustls and ring. Every connection makes a full handshake: a resumed session would
//! hide that the certificate has expired since.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::config::check::Tls;

/// What HTTPS checks share: the system's certificates, read once.
#[derive(Debug)]
pub struct TlsClients {
    /// Why no check can verify, if none can.
    verifying: Result<Arc<ClientConfig>, String>,
    trusting: Arc<ClientConfig>,
}

impl TlsClients {
    /// Reads the system's certificates, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`. Without any, only checks that
    /// verify fail.
    #[expect(clippy::new_without_default, reason = "reads files")]
    pub fn new() -> Self {
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() {
            let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
            return Self::from(Err(format!("this machine has no certificates to verify others with{why}")));
        }
        Self::with_roots(found.certs)
    }

    /// Trusts these certificates only, as far as they are certificates.
    pub fn with_roots(certificates: Vec<CertificateDer<'static>>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates);
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()))
                .build()
                .map_err(|error| format!("this machine has no certificates to verify others with: {error}"));
        Self::from(verifier.map(|verifier| config(verifier)))
    }

    fn from(verifying: Result<Arc<ClientConfig>, String>) -> Self {
        Self { verifying, trusting: config(Arc::new(TrustAll(ring::default_provider()))) }
    }

    /// The client for a check.
    ///
    /// # Errors
    /// When it verifies and there is nothing to verify with.
    pub(super) fn config(&self, tls: &Tls) -> Result<Arc<ClientConfig>, String> {
        if tls.verify { self.verifying.clone() } else { Ok(Arc::clone(&self.trusting)) }
    }
}

fn config(verifier: Arc<dyn ServerCertVerifier>) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has suites for TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Takes any certificate. That the server has its key is still checked: a server that cannot sign serves nobody.
#[derive(Debug)]
struct TrustAll(CryptoProvider);

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What went wrong, in a few words. Names that the certificate has are not shown: they are the server's text and may be
/// many.
pub(super) fn words(error: &Error) -> String {
    use CertificateError as Wrong;
    match error {
        Error::InvalidCertificate(wrong) => match wrong {
            Wrong::Expired | Wrong::ExpiredContext { .. } => "certificate expired".into(),
            Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => "certificate not valid yet".into(),
            Wrong::UnknownIssuer => "certificate of an unknown issuer".into(),
            Wrong::NotValidForName => "certificate is for another name".into(),
            Wrong::NotValidForNameContext { expected, .. } => {
                format!("certificate is not for {}", expected.to_str())
            }
            Wrong::BadSignature => "certificate with a wrong signature".into(),
            Wrong::BadEncoding => "no valid certificate".into(),
            other => super::words::quoted(format!("certificate refused: {other:?}").as_bytes()),
        },
        Error::InvalidMessage(_) => "no TLS in the answer".into(),
        Error::AlertReceived(alert) => format!("TLS refused by the server: {alert:?}"),
        other => super::words::quoted(format!("TLS: {other}").as_bytes()),
    }
}
