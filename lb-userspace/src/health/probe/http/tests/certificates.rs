//! Certificates and their key, made anew by each run: a key in a repository is nobody's secret, also where it says so.

use std::sync::LazyLock;

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// One of the certificates; each signs itself.
#[derive(Debug, Clone, Copy)]
pub enum Certificate {
    /// For `web.example`, 127.0.0.1 and ::1.
    Web,
    /// The same, with the same key, in 2020 only.
    Expired,
    /// Somebody else's.
    Other,
}

static KEYS: LazyLock<[KeyPair; 2]> = LazyLock::new(|| [(); 2].map(|()| KeyPair::generate().unwrap()));
static MADE: LazyLock<[CertificateDer<'static>; 3]> = LazyLock::new(|| {
    [Certificate::Web, Certificate::Expired, Certificate::Other].map(|certificate| {
        let made = certificate.params().self_signed(certificate.key_pair()).unwrap();
        made.der().clone()
    })
});

impl Certificate {
    pub fn der(self) -> CertificateDer<'static> {
        MADE[self as usize].clone()
    }

    pub fn key(self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key_pair().serialize_der()).into()
    }

    fn key_pair(self) -> &'static KeyPair {
        match self {
            Self::Web | Self::Expired => &KEYS[0],
            Self::Other => &KEYS[1],
        }
    }

    fn params(self) -> CertificateParams {
        let (name, names) = match self {
            Self::Web | Self::Expired => ("web.example", &["web.example", "127.0.0.1", "::1"][..]),
            Self::Other => ("other.example", &["other.example"][..]),
        };
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if matches!(self, Self::Expired) {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        params
    }
}
