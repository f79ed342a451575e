//! Plain HTTP, as far as a test needs it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What a kubelet would wait for an answer.
const LIMIT: Duration = Duration::from_secs(1);

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// All headers, as they came.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Gets a path. `accept` is the header of that name.
pub async fn get(address: SocketAddr, path: &str, accept: &str) -> Result<Answer> {
    let request = format!("GET {path} HTTP/1.0\r\nHost: test\r\nAccept: {accept}\r\n\r\n");
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(LIMIT, exchange)
        .await
        .with_context(|| format!("no answer of {address} to GET {path}"))?
        .with_context(|| format!("could not GET {path} from {address}"))?;
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n");
    let end = end.context("an answer without an end of its headers")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let code = head.split(' ').nth(1).context("an answer without a code")?;
    Ok(Answer {
        code: code.parse()?,
        body: answer[end + 4..].to_vec(),
        head,
    })
}

/// The sum of a metric's samples whose labels contain all of `labels`, in the text format.
pub fn sample(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let samples = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (metric, set) = series.split_once('{').unwrap_or((series, ""));
        let fits = metric == name && labels.iter().all(|it| set.contains(it));
        fits.then(|| value.parse::<f64>().ok()).flatten()
    });
    samples.reduce(|sum, it| sum + it)
}
