//! TLS towards agents: 1.3 and nothing older, with a certificate that can change at any time.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use tokio_rustls::TlsAcceptor;
use tracing::info;

/// The certificate in use. New connections get the newest; those that stand keep theirs.
#[derive(Debug, Default)]
pub struct Served {
    current: RwLock<Option<Arc<CertifiedKey>>>,
}

impl Served {
    /// Serves with another one from now on.
    pub fn replace(&self, certified: CertifiedKey) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|it| it.cert != certified.cert) {
            *current = Some(Arc::new(certified));
            info!("Serving with another certificate");
        }
    }
}

impl ResolvesServerCert for Served {
    // Agents that dial an address send no name, so the name that is asked for plays no part.
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }
}

/// What turns an accepted connection into one with TLS.
pub fn acceptor(served: Arc<Served>) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        // Agents show who they are by a token within the connection.
        .with_no_client_auth()
        .with_cert_resolver(served);
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Every connection shows the present certificate; none goes on from an earlier one.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
