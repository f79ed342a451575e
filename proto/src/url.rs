//! The operator's address, as both binaries take it.

use std::net::IpAddr;

use tonic::transport::Uri;

const ADVICE: &str = "write a URL such as https://maplatency-gateway.maplatency-system.svc:7443";

/// How agents and operator talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// By TLS, with a token of the agent.
    Tls,
    /// In plaintext, and whoever talks is believed.
    Plaintext,
}

/// Reads the URL under which agents find the operator, or says what to write instead.
pub fn operator_url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|it| format!("{it}; {ADVICE}"))?;
    let host = url.host().is_some_and(|it| !it.is_empty());
    if !host || !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(ADVICE.to_owned());
    }
    if has_port(&url) && url.port_u16().is_none() {
        return Err(format!("has no port from 1 to 65535; {ADVICE}"));
    }
    if url.port_u16() == Some(0) {
        return Err("port 0 is no port; write the one that the operator listens on".to_owned());
    }
    match url.path_and_query() {
        Some(path) if path.as_str() != "/" => Err(format!(
            "holds more than host and port; leave {:?} out",
            path.as_str()
        )),
        _ => Ok(url),
    }
}

/// What a URL of [`operator_url`] asks for, or why it does not go with `--insecure-plaintext` as it is given.
pub fn transport(url: &Uri, insecure_plaintext: bool) -> Result<Transport, String> {
    match (url.scheme_str(), insecure_plaintext) {
        (Some("https"), false) => Ok(Transport::Tls),
        (Some("https"), true) => Err(format!(
            "{url} asks for TLS and --insecure-plaintext for none; leave --insecure-plaintext out"
        )),
        (_, false) => Err(format!(
            "{url} asks for no TLS; write https://, or, for a trial on a single host, add --insecure-plaintext"
        )),
        (_, true) if is_loopback(url) => Ok(Transport::Plaintext),
        (_, true) => Err(format!(
            "--insecure-plaintext is for trials on a single host, and {url} is not a loopback address; write https:// \
             and leave --insecure-plaintext out, or write http://127.0.0.1:7443"
        )),
    }
}

fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|it: IpAddr| it.is_loopback())
}

/// Whether something follows the host, even if it is no number.
fn has_port(url: &Uri) -> bool {
    let authority = url.authority().map_or("", |it| it.as_str());
    // An IPv6 address holds colons itself, between brackets.
    authority
        .rsplit_once(']')
        .map_or(authority, |it| it.1)
        .contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(url: &str, insecure_plaintext: bool) -> Result<Transport, String> {
        transport(&operator_url(url).unwrap(), insecure_plaintext)
    }

    #[test]
    fn plaintext_is_for_loopback_and_those_who_ask_for_it() {
        for url in ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"] {
            assert_eq!(asked(url, true), Ok(Transport::Plaintext), "{url}");
            let error = asked(url, false).unwrap_err();
            assert!(error.contains("write https://, or"), "{error}");
        }
        for url in ["http://10.0.0.1:1", "http://maplatency-operator.ns.svc:1"] {
            let error = asked(url, true).unwrap_err();
            assert!(error.contains("is not a loopback address"), "{error}");
        }
    }

    #[test]
    fn https_means_tls() {
        assert_eq!(asked("https://a.b:1", false), Ok(Transport::Tls));
        let error = asked("https://127.0.0.1:1", true).unwrap_err();
        assert!(error.contains("leave --insecure-plaintext out"), "{error}");
    }
}
