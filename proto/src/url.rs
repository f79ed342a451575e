//! The operator's address, as both binaries take it.

use tonic::transport::Uri;

const ADVICE: &str = "write a URL such as http://maplatency-operator.maplatency-system.svc:7443";

/// Reads the URL under which agents find the operator, or says what to write instead.
pub fn operator_url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|it| format!("{it}; {ADVICE}"))?;
    let host = url.host().is_some_and(|it| !it.is_empty());
    match url.scheme_str() {
        Some("http") if host => (),
        Some("https") => {
            return Err("TLS comes with a later release; write http://, as in http://maplatency-operator.maplatency-system.svc:7443".to_owned());
        }
        _ => return Err(ADVICE.to_owned()),
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

/// Whether something follows the host, even if it is no number.
fn has_port(url: &Uri) -> bool {
    let authority = url.authority().map_or("", |it| it.as_str());
    // An IPv6 address holds colons itself, between brackets.
    authority
        .rsplit_once(']')
        .map_or(authority, |it| it.1)
        .contains(':')
}
