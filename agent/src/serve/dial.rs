//! How the agent reaches the operator: whom it trusts, and how it shows who it is.
//!
//! The files with the CAs and with the token are read for every connection, since the kubelet renews both while the
//! agent runs.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, ErrorKind, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use maplatency_proto::{MAX_TOKEN_BYTES, Token, Transport};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};
use tower_service::Service;

use crate::args::ServeArgs;

/// Longest time for a connection to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// As long as there is another address: of a node that is gone, or of an operator that hangs, comes no answer.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// A connection is asked this often whether it still stands, and has this long to answer.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);
/// Largest file of CAs. The operator publishes three at most, of less than 1 KiB each.
const MAX_CA_BYTES: u64 = 256 * 1024;

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// A file could not be read.
    #[error("could not read {path}, {what}")]
    File {
        /// Which.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} {problem}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what should be there.
        problem: &'static str,
    },
    /// The host of the URL is no name for a certificate.
    #[error("{host:?} is no name that a certificate can have; correct --operator")]
    Name {
        /// Which.
        host: String,
        /// Why.
        source: InvalidDnsNameError,
    },
    /// TLS could not be set up.
    #[error("could not set up TLS")]
    Tls(#[source] rustls::Error),
    /// The operator was not reached, or it is not the one.
    #[error("could not connect to the operator")]
    Connect(#[source] tonic::transport::Error),
}

/// What it takes to reach the operator.
#[derive(Debug)]
pub struct Dialer {
    url: Uri,
    /// `None` in plaintext.
    files: Option<Files>,
}

#[derive(Debug)]
struct Files {
    ca: PathBuf,
    token: PathBuf,
}

/// A connection, and what to show on it.
#[derive(Debug)]
pub struct Connection {
    /// The connection.
    pub channel: Channel,
    /// `None` in plaintext.
    pub token: Option<Token>,
}

impl Dialer {
    /// As the command line says.
    pub fn new(args: &ServeArgs, transport: Transport) -> Self {
        let url = args.operator.clone();
        match transport {
            Transport::Tls => Self::tls(url, args.operator_ca.clone(), args.token_file.clone()),
            Transport::Plaintext => Self { url, files: None },
        }
    }

    /// By TLS, with these files.
    pub fn tls(url: Uri, ca: PathBuf, token: PathBuf) -> Self {
        Self {
            url,
            files: Some(Files { ca, token }),
        }
    }

    /// Connects with what the files hold now.
    pub async fn dial(&self) -> Result<Connection, DialError> {
        let endpoint = endpoint(&self.url);
        let Some(files) = &self.files else {
            let channel = endpoint.connect().await.map_err(DialError::Connect)?;
            return Ok(Connection {
                channel,
                token: None,
            });
        };
        let token = read_token(&files.token)?;
        let connector = Connector::new(&self.url, read_roots(&files.ca)?)?;
        let channel = endpoint
            .connect_with_connector(connector)
            .await
            .map_err(DialError::Connect)?;
        Ok(Connection {
            channel,
            token: Some(token),
        })
    }

    /// The token that the file holds now, if it is another one than `than`. A file that cannot be read is looked at
    /// again another time.
    pub fn newer_token(&self, than: &Token) -> Option<Token> {
        let files = self.files.as_ref()?;
        read_token(&files.token).ok().filter(|it| it != than)
    }
}

/// A token as a header.
pub fn bearer(token: &Token) -> MetadataValue<Ascii> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.secret())
        .parse()
        .expect("tokens are visible ASCII");
    value.set_sensitive(true);
    value
}

fn endpoint(url: &Uri) -> Endpoint {
    Endpoint::from(url.clone())
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_ANSWER)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
}

fn read(path: &Path, most: u64, what: &'static str) -> Result<Vec<u8>, DialError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|it| it.take(most + 1).read_to_end(&mut bytes))
        .map_err(|source| DialError::File {
            path: path.to_owned(),
            what,
            source,
        })?;
    if bytes.len() as u64 > most {
        return Err(DialError::Content {
            path: path.to_owned(),
            problem: "is far larger than what should be in it",
        });
    }
    Ok(bytes)
}

fn read_token(path: &Path) -> Result<Token, DialError> {
    let what = "the token with audience maplatency-operator (--token-file)";
    let bytes = read(path, MAX_TOKEN_BYTES as u64 + 1, what)?;
    String::from_utf8(bytes)
        .ok()
        .and_then(|it| Token::new(it.trim().to_owned()).ok())
        .ok_or_else(|| DialError::Content {
            path: path.to_owned(),
            problem: "holds no token; name the file of a projected service account token by --token-file",
        })
}

fn read_roots(path: &Path) -> Result<RootCertStore, DialError> {
    let what = "the CAs of the operator (--operator-ca)";
    let bytes = read(path, MAX_CA_BYTES, what)?;
    let wrong = |problem| DialError::Content {
        path: path.to_owned(),
        problem,
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate =
            certificate.map_err(|_| wrong("is damaged; it should hold CAs in PEM"))?;
        roots
            .add(certificate)
            .map_err(|_| wrong("holds a certificate that is none"))?;
    }
    if roots.is_empty() {
        return Err(wrong(
            "holds no CA; it should be ca.crt of ConfigMap maplatency-operator-ca (--operator-ca)",
        ));
    }
    Ok(roots)
}

/// Opens connections with TLS 1.3.
#[derive(Clone)]
struct Connector {
    tls: TlsConnector,
    name: ServerName<'static>,
}

impl Connector {
    fn new(url: &Uri, roots: RootCertStore) -> Result<Self, DialError> {
        let host = url.host().unwrap_or_default();
        // An IPv6 address stands in brackets in a URL, and not in a certificate.
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(host.clone())
            .map_err(|source| DialError::Name { host, source })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(DialError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Each connection checks the certificate anew.
        config.resumption = Resumption::disabled();
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
            name,
        })
    }

    async fn connect(self, url: Uri) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
        let host = url.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = url.port_u16().unwrap_or(443);
        let mut addresses: Vec<_> = lookup_host((host, port)).await?.collect();
        // So that none is the first, or the last, each time.
        let by_chance = RandomState::new().hash_one(());
        let first = by_chance.checked_rem(addresses.len() as u64).unwrap_or(0);
        addresses.rotate_left(usize::try_from(first).unwrap_or(0));
        self.connect_to_any(&addresses).await.map(TokioIo::new)
    }

    /// Connects to the first address that lets it. The last one has all the time that is left.
    async fn connect_to_any(&self, addresses: &[SocketAddr]) -> io::Result<TlsStream<TcpStream>> {
        let mut failure = io::Error::new(ErrorKind::NotFound, "the name has no address");
        let mut tells_most = false;
        for (index, address) in addresses.iter().enumerate() {
            let attempt = self.connect_to(*address);
            let result = if index + 1 < addresses.len() {
                timeout(ATTEMPT, attempt)
                    .await
                    .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
            } else {
                attempt.await
            };
            match result {
                Ok(stream) => return Ok(stream),
                // Operators that stand by refuse, so what another one says matters more.
                Err(error) if !tells_most => {
                    let says_little = [ErrorKind::ConnectionRefused, ErrorKind::TimedOut];
                    tells_most = !says_little.contains(&error.kind());
                    failure = error;
                }
                Err(_) => (),
            }
        }
        Err(failure)
    }

    async fn connect_to(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        self.tls.connect(self.name.clone(), tcp).await
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        Box::pin(self.clone().connect(url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    /// A node that is gone, or an operator that hangs, must not use up the time of the others.
    #[tokio::test]
    async fn an_address_that_does_not_answer_leads_to_the_next() {
        let url = Uri::from_static("https://operator.test:7443");
        let connector = Connector::new(&url, RootCertStore::empty()).unwrap();
        // The kernel takes its connections, and nobody answers on them.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let refuses = refusing.local_addr().unwrap();
        drop(refusing);
        let ending = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ends = ending.local_addr().unwrap();
        let server = async {
            drop(ending.accept().await.unwrap());
            std::future::pending::<()>().await;
        };
        let addresses = [silent.local_addr().unwrap(), ends, refuses];

        let connect = timeout(CONNECT, connector.connect_to_any(&addresses));
        let result = tokio::select! {
            result = connect => result.expect("the second is reached in time"),
            () = server => unreachable!(),
        };

        // What the second one did, and not that the third one refused.
        let kind = result.unwrap_err().kind();
        assert!(
            [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].contains(&kind),
            "{kind}"
        );
    }

    #[test]
    fn a_token_is_read_without_the_end_of_its_line() {
        let token = read_token(file("a.b.c\n").path()).unwrap();
        assert_eq!(token.secret(), "a.b.c");
        let header = bearer(&token);
        assert_eq!(header.to_str().unwrap(), "Bearer a.b.c");
        assert!(header.is_sensitive());
    }

    #[test]
    fn files_that_do_not_hold_what_they_should_are_named_with_what_should_be_there() {
        let long = "a".repeat(MAX_TOKEN_BYTES + 2);
        for (text, problem) in [
            ("", "holds no token"),
            ("a b", "holds no token"),
            (&long, "is far larger"),
        ] {
            let error = read_token(file(text).path()).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
        for (text, problem) in [
            ("", "holds no CA; it should be ca.crt"),
            (
                "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
                "is damaged",
            ),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "that is none",
            ),
        ] {
            let error = read_roots(file(text).path()).unwrap_err().to_string();
            assert!(error.contains(problem), "{text:?}: {error}");
        }
        let error = read_token(Path::new("/nowhere/token"))
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "could not read /nowhere/token, the token with audience maplatency-operator (--token-file)"
        );
    }
}
