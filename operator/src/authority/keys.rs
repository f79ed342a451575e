//! Keys and certificates, and how they stand in the Secret.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Error;
use super::plan::{BACKDATED, Facts, Terms, Validity};

const CA: (&str, &str) = ("ca.crt", "ca.key");
const NEXT: (&str, &str) = ("next-ca.crt", "next-ca.key");
const PREVIOUS: &str = "previous-ca.crt";
const SERVING: (&str, &str) = ("tls.crt", "tls.key");

/// Names and addresses under which agents dial the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(Vec<String>);

impl Names {
    /// Each once, in order. A name that no certificate can hold is refused.
    pub fn new(names: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut all: Vec<String> = Vec::new();
        for name in names {
            if ServerName::try_from(name.as_str()).is_err() {
                return Err(format!(
                    "{name:?} is no name for a certificate; write a DNS name or an IP address"
                ));
            }
            if !all.contains(&name) {
                all.push(name);
            }
        }
        Ok(Self(all))
    }
}

/// A certificate, and when it holds.
#[derive(Clone, Debug)]
struct Certificate {
    pem: String,
    der: CertificateDer<'static>,
    validity: Validity,
}

/// A CA with its key.
#[derive(Clone)]
struct Authority {
    certificate: Certificate,
    key: String,
}

/// Everything in the Secret.
#[derive(Clone)]
pub(super) struct Held {
    ca: Authority,
    next: Option<Authority>,
    previous: Option<Previous>,
    /// `None` where the Secret holds none that can be read.
    serving: Option<Serving>,
}

/// A CA that signs no more. Its key is gone.
#[derive(Clone)]
struct Previous(Certificate);

#[derive(Clone)]
struct Serving {
    certificate: Certificate,
    key: String,
}

impl Authority {
    /// A new one.
    fn new(life: Duration, now: Timestamp) -> Result<Self, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&format!("maplatency-operator CA of {now:.0}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        last(&mut params, now, now + signed(life));
        let key = KeyPair::generate().map_err(|source| Error::Make { source })?;
        let certificate = params
            .self_signed(&key)
            .map_err(|source| Error::Make { source })?;
        Ok(Self {
            certificate: Certificate::read(CA.0, certificate.pem())?,
            key: key.serialize_pem(),
        })
    }

    fn sign(&self, life: Duration, names: &Names, now: Timestamp) -> Result<Serving, Error> {
        let make = |source| Error::Make { source };
        let key = KeyPair::from_pem(&self.key).map_err(make)?;
        let issuer = Issuer::from_ca_cert_der(&self.certificate.der, key).map_err(make)?;
        let mut params = CertificateParams::new(names.0.clone()).map_err(make)?;
        params.distinguished_name = named("maplatency-operator");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // A certificate that outlives its CA would be worth nothing in the end.
        let ends = (now + signed(life)).min(self.certificate.validity.ends);
        last(&mut params, now, ends);
        let key = KeyPair::generate().map_err(make)?;
        let certificate = params.signed_by(&key, &issuer).map_err(make)?;
        Ok(Serving {
            certificate: Certificate::read(SERVING.0, certificate.pem())?,
            key: key.serialize_pem(),
        })
    }
}

impl Certificate {
    fn read(key: &'static str, pem: String) -> Result<Self, Error> {
        let wrong = |problem| Error::Content { key, problem };
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| wrong("holds no certificate in PEM"))?;
        let (_, parsed) =
            X509Certificate::from_der(&der).map_err(|_| wrong("holds no X.509 certificate"))?;
        let time = |it: x509_parser::time::ASN1Time| {
            Timestamp::from_second(it.timestamp()).map_err(|_| wrong("holds a time out of range"))
        };
        let validity = Validity {
            made: time(parsed.validity().not_before)? + signed(BACKDATED),
            ends: time(parsed.validity().not_after)?,
        };
        Ok(Self { pem, der, validity })
    }
}

impl Serving {
    fn certified(&self) -> Result<CertifiedKey, Error> {
        let serve = |source| Error::Serve { source };
        let key =
            PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|_| Error::Content {
                key: SERVING.1,
                problem: "holds no private key in PEM",
            })?;
        let key = ring::sign::any_ecdsa_type(&key).map_err(serve)?;
        let certified = CertifiedKey::new(vec![self.certificate.der.clone()], key);
        certified.keys_match().map_err(serve)?;
        Ok(certified)
    }

    /// Whether agents take it that trust this CA alone, under every name.
    fn is_taken(&self, ca: &Authority, names: &Names, now: Timestamp) -> bool {
        let mut roots = RootCertStore::empty();
        if roots.add(ca.certificate.der.clone()).is_err() || self.certified().is_err() {
            return false;
        }
        let provider = Arc::new(ring::default_provider());
        let Ok(verifier) =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()
        else {
            return false;
        };
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        names.0.iter().all(|name| {
            ServerName::try_from(name.as_str()).is_ok_and(|name| {
                verifier
                    .verify_server_cert(&self.certificate.der, &[], &name, &[], now)
                    .is_ok()
            })
        })
    }
}

impl Held {
    /// A first CA and its certificate.
    pub(super) fn begin(terms: Terms, names: &Names, now: Timestamp) -> Result<Self, Error> {
        let ca = Authority::new(terms.ca, now)?;
        Ok(Self {
            serving: Some(ca.sign(terms.certificate, names, now)?),
            ca,
            next: None,
            previous: None,
        })
    }

    /// With the CA that will sign.
    pub(super) fn prepared(self, terms: Terms, now: Timestamp) -> Result<Self, Error> {
        Ok(Self {
            next: Some(Authority::new(terms.ca, now)?),
            ..self
        })
    }

    /// Without the CA that signed before.
    pub(super) fn retired(self) -> Self {
        Self {
            previous: None,
            ..self
        }
    }

    /// The next CA signs, and the one before only is trusted.
    pub(super) fn promoted(
        self,
        terms: Terms,
        names: &Names,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let Some(ca) = self.next else {
            return Ok(self);
        };
        Ok(Self {
            serving: Some(ca.sign(terms.certificate, names, now)?),
            ca,
            next: None,
            previous: Some(Previous(self.ca.certificate)),
        })
    }

    /// Another certificate by the same CA.
    pub(super) fn renewed(
        self,
        terms: Terms,
        names: &Names,
        now: Timestamp,
    ) -> Result<Self, Error> {
        Ok(Self {
            serving: Some(self.ca.sign(terms.certificate, names, now)?),
            ..self
        })
    }

    pub(super) fn facts(&self, names: &Names, now: Timestamp) -> Facts {
        Facts {
            ca: self.ca.certificate.validity,
            has_next: self.next.is_some(),
            has_previous: self.previous.is_some(),
            certificate: self
                .serving
                .as_ref()
                .filter(|it| it.is_taken(&self.ca, names, now))
                .map(|it| it.certificate.validity),
        }
    }

    /// What agents are to trust, as PEM. The CA that signs stands first.
    pub(super) fn bundle(&self) -> String {
        let Self {
            ca,
            next,
            previous,
            serving: _,
        } = self;
        let all = [
            Some(&ca.certificate),
            next.as_ref().map(|it| &it.certificate),
            previous.as_ref().map(|it| &it.0),
        ];
        all.into_iter()
            .flatten()
            .map(|it| it.pem.as_str())
            .collect()
    }

    /// What to serve with.
    pub(super) fn serving(&self) -> Result<CertifiedKey, Error> {
        match &self.serving {
            Some(serving) => serving.certified(),
            None => Err(Error::Content {
                key: SERVING.0,
                problem: "is missing",
            }),
        }
    }

    /// As the Secret holds it.
    pub(super) fn data(&self) -> BTreeMap<String, ByteString> {
        let Self {
            ca,
            next,
            previous,
            serving,
        } = self;
        let mut data = BTreeMap::new();
        let mut put = |key: &str, text: &str| {
            data.insert(key.to_owned(), ByteString(text.as_bytes().to_vec()));
        };
        for ((certificate, key), authority) in [(CA, Some(ca)), (NEXT, next.as_ref())] {
            if let Some(it) = authority {
                put(certificate, &it.certificate.pem);
                put(key, &it.key);
            }
        }
        if let Some(it) = previous {
            put(PREVIOUS, &it.0.pem);
        }
        if let Some(it) = serving {
            put(SERVING.0, &it.certificate.pem);
            put(SERVING.1, &it.key);
        }
        data
    }

    /// Reads what [`Self::data`] wrote. Only the CA has to be there; whatever else is damaged is left out and made
    /// again.
    pub(super) fn read(secret: &Secret) -> Result<Self, Error> {
        let text = |key: &'static str| {
            let wrong = |problem| Error::Content { key, problem };
            let bytes = secret.data.as_ref().and_then(|it| it.get(key));
            let bytes = bytes.ok_or(wrong("is missing"))?;
            String::from_utf8(bytes.0.clone()).map_err(|_| wrong("is no text"))
        };
        let authority = |(certificate, key): (&'static str, &'static str)| {
            let authority = Authority {
                certificate: Certificate::read(certificate, text(certificate)?)?,
                key: text(key)?,
            };
            authority.is_whole(key)?;
            Ok::<_, Error>(authority)
        };
        let serving = || {
            Ok::<_, Error>(Serving {
                certificate: Certificate::read(SERVING.0, text(SERVING.0)?)?,
                key: text(SERVING.1)?,
            })
        };
        Ok(Self {
            ca: authority(CA)?,
            next: authority(NEXT).ok(),
            previous: text(PREVIOUS)
                .and_then(|it| Certificate::read(PREVIOUS, it))
                .ok()
                .map(Previous),
            serving: serving().ok(),
        })
    }
}

impl Authority {
    /// Whether the key is that of the certificate.
    fn is_whole(&self, name: &'static str) -> Result<(), Error> {
        let wrong = |problem| Error::Content { key: name, problem };
        let key = KeyPair::from_pem(&self.key).map_err(|_| wrong("holds no private key in PEM"))?;
        let (_, parsed) = X509Certificate::from_der(&self.certificate.der)
            .map_err(|_| wrong("has no X.509 certificate beside it"))?;
        let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
        if parsed.public_key().raw == spki.as_slice() {
            Ok(())
        } else {
            Err(wrong("is not the key of the certificate beside it"))
        }
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn last(params: &mut CertificateParams, made: Timestamp, ends: Timestamp) {
    params.not_before = whole_seconds(made - signed(BACKDATED));
    params.not_after = whole_seconds(ends);
}

/// Certificates know no parts of seconds.
fn whole_seconds(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms {
        ca: Duration::from_hours(24 * 365),
        certificate: Duration::from_hours(24 * 30),
        spread: Duration::from_mins(15),
    };

    fn names() -> Names {
        Names::new(["operator.test.svc".to_owned(), "127.0.0.1".to_owned()]).unwrap()
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn secret(data: BTreeMap<String, ByteString>) -> Secret {
        Secret {
            data: Some(data),
            ..Secret::default()
        }
    }

    fn begun() -> Held {
        Held::begin(TERMS, &names(), now()).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let held = begun().prepared(TERMS, now()).unwrap();
        let held = held.promoted(TERMS, &names(), now()).unwrap();

        let again = Held::read(&secret(held.data())).unwrap();

        assert_eq!(again.data(), held.data());
        assert_eq!(again.bundle(), held.bundle());
        let facts = again.facts(&names(), now());
        assert!(facts.has_previous && !facts.has_next);
        let certificate = facts.certificate.unwrap();
        assert_eq!(certificate.made, now());
        assert_eq!(certificate.ends, now() + signed(TERMS.certificate));
        again.serving().unwrap();
    }

    #[test]
    fn agents_that_trust_only_the_old_ca_take_the_certificate_until_the_next_one_signs() {
        let held = begun();
        let old = held.ca.clone();
        let held = held.prepared(TERMS, now()).unwrap();
        assert!(held.bundle().contains(&old.certificate.pem));
        assert_eq!(held.bundle().matches("BEGIN CERTIFICATE").count(), 2);
        let taken = |held: &Held, ca| held.serving.as_ref().unwrap().is_taken(ca, &names(), now());
        assert!(taken(&held, &old));

        let before = held.bundle();
        let promoted = held.promoted(TERMS, &names(), now()).unwrap();

        assert!(!taken(&promoted, &old));
        assert!(taken(&promoted, &promoted.ca));
        assert!(promoted.bundle().contains(&old.certificate.pem));
        assert_ne!(promoted.bundle(), before, "so it is published anew");
        let kept: Vec<ByteString> = promoted.data().into_values().collect();
        let key = ByteString(old.key.into_bytes());
        assert!(!kept.contains(&key), "the key of the old one is gone");
        assert!(!promoted.retired().bundle().contains(&old.certificate.pem));
    }

    #[test]
    fn a_certificate_that_agents_would_not_take_counts_as_none() {
        let held = begun();
        let valid = |names: &Names, now| held.facts(names, now).certificate.is_some();
        assert!(valid(&names(), now()));
        let more = Names::new(["another.name".to_owned()]).unwrap();
        assert!(!valid(&more, now()), "another name is wanted");
        let later = now() + signed(TERMS.certificate) + SignedDuration::from_secs(1);
        assert!(!valid(&names(), later), "it has ended");
        let other = Held {
            ca: begun().ca,
            ..held.clone()
        };
        assert_eq!(
            other.facts(&names(), now()).certificate,
            None,
            "another CA has signed it"
        );
    }

    #[test]
    fn no_certificate_outlives_its_ca() {
        let terms = Terms {
            ca: Duration::from_mins(1),
            ..TERMS
        };
        let held = Held::begin(terms, &names(), now()).unwrap();
        let facts = held.facts(&names(), now());
        assert_eq!(facts.certificate.unwrap().ends, facts.ca.ends);
    }

    #[test]
    fn a_damaged_ca_is_refused_with_the_key_of_the_secret_and_the_rest_is_made_again() {
        let held = begun();
        for (key, text, problem) in [
            (
                "ca.crt",
                "nonsense",
                "ca.crt of secret maplatency-operator-ca holds no certificate",
            ),
            (
                "ca.key",
                "nonsense",
                "ca.key of secret maplatency-operator-ca holds no private key",
            ),
        ] {
            let mut data = held.data();
            data.insert(key.to_owned(), ByteString(text.as_bytes().to_vec()));
            let error = Held::read(&secret(data)).err().unwrap().to_string();
            assert!(error.starts_with(problem), "{error}");
        }
        let mut data = held.data();
        data.insert("ca.key".to_owned(), begun().data()["ca.key"].clone());
        let error = Held::read(&secret(data)).err().unwrap().to_string();
        assert!(
            error.contains("is not the key of the certificate"),
            "{error}"
        );
        assert!(Held::read(&Secret::default()).is_err());

        for key in ["tls.crt", "tls.key"] {
            let mut data = held.data();
            data.insert(key.to_owned(), ByteString(b"nonsense".to_vec()));
            let damaged = Held::read(&secret(data)).unwrap();
            assert_eq!(damaged.facts(&names(), now()).certificate, None);
            let renewed = damaged.renewed(TERMS, &names(), now()).unwrap();
            assert!(renewed.facts(&names(), now()).certificate.is_some());
        }
    }

    #[test]
    fn names_that_no_certificate_can_hold_are_refused() {
        assert!(
            Names::new(["a b".to_owned()])
                .unwrap_err()
                .contains("write a DNS name")
        );
        let once = Names::new(["a.b".to_owned(), "::1".to_owned(), "a.b".to_owned()]).unwrap();
        assert_eq!(once.0, ["a.b", "::1"]);
    }
}
