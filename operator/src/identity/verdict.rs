//! What a token says of itself, and what the API server says of it.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use k8s_openapi::jiff::Timestamp;
use maplatency_proto::{AUDIENCE, Token};
use serde::Deserialize;

use super::Refusal;

/// Where the API server tells the node of a pod's token.
const NODE: &str = "authentication.kubernetes.io/node-name";
/// And the pod itself.
const POD: &str = "authentication.kubernetes.io/pod-name";

/// An agent, as the API server knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The node that its pod runs on.
    pub node: String,
    /// Its pod.
    pub pod: String,
    /// When its token is over.
    pub expires: Timestamp,
}

/// What the token says. Nothing of it is believed; it only spares the API server useless questions, and tells when to
/// ask for a fresh one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claims {
    expires: Timestamp,
}

#[derive(Deserialize)]
struct Payload {
    aud: Audiences,
    exp: i64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

impl Claims {
    pub(super) fn read(token: &Token, now: Timestamp) -> Result<Self, Refusal> {
        let mut parts = token.secret().split('.');
        let (Some(_), Some(payload), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refusal::Malformed("is no JSON Web Token"));
        };
        let payload = BASE64_URL_SAFE_NO_PAD
            .decode(payload)
            .map_err(|_| Refusal::Malformed("is no JSON Web Token"))?;
        let payload: Payload = serde_json::from_slice(&payload)
            .map_err(|_| Refusal::Malformed("names no audience or no end"))?;
        let is_ours = match &payload.aud {
            Audiences::One(it) => it == AUDIENCE,
            Audiences::Many(all) => all.iter().any(|it| it == AUDIENCE),
        };
        if !is_ours {
            return Err(Refusal::OtherAudience);
        }
        let expires = Timestamp::from_second(payload.exp)
            .map_err(|_| Refusal::Malformed("ends at no time"))?;
        if expires <= now {
            return Err(Refusal::Expired);
        }
        Ok(Self { expires })
    }
}

/// Who it is, if the API server's answer is enough.
pub(super) fn verdict(
    status: &TokenReviewStatus,
    wanted: &str,
    claims: Claims,
) -> Result<Caller, Refusal> {
    if status.authenticated != Some(true) {
        return Err(Refusal::Rejected);
    }
    // An API server that knows no audiences answers without them, for tokens of any.
    if !status.audiences.iter().flatten().any(|it| it == AUDIENCE) {
        return Err(Refusal::OtherAudience);
    }
    let user = status.user.as_ref().ok_or(Refusal::Rejected)?;
    let found = user.username.as_deref().unwrap_or_default();
    if found != wanted {
        return Err(Refusal::OtherAccount {
            found: found.to_owned(),
            wanted: wanted.to_owned(),
        });
    }
    let only = |key: &str| match user.extra.as_ref()?.get(key)?.as_slice() {
        [one] => Some(one.clone()),
        _ => None,
    };
    // A token can be bound to a node alone, by whoever may make one; those of kubelets are bound to a pod.
    let (node, pod) = only(NODE).zip(only(POD)).ok_or(Refusal::NoNode)?;
    Ok(Caller {
        node,
        pod,
        expires: claims.expires,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use k8s_openapi::api::authentication::v1::UserInfo;
    use serde_json::json;

    const NOW: i64 = 1_800_000_000;
    const USER: &str = "system:serviceaccount:maplatency-system:maplatency-agent";

    fn now() -> Timestamp {
        Timestamp::from_second(NOW).unwrap()
    }

    fn token(payload: &str) -> Token {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(payload);
        Token::new(format!("e30.{payload}.c2ln")).unwrap()
    }

    /// One for us that is over then.
    pub(in crate::identity) fn token_until(end: Timestamp) -> Token {
        let end = end.as_second();
        token(&format!(r#"{{"aud": "{AUDIENCE}", "exp": {end}}}"#))
    }

    fn read(payload: &str) -> Result<Claims, Refusal> {
        Claims::read(&token(payload), now())
    }

    #[test]
    fn a_token_for_us_that_is_not_over_is_worth_asking_about() {
        let expires = Timestamp::from_second(NOW + 1).unwrap();
        for audience in [
            r#""maplatency-operator""#,
            r#"["x", "maplatency-operator"]"#,
        ] {
            let payload = format!(r#"{{"aud": {audience}, "exp": {}}}"#, NOW + 1);
            assert_eq!(read(&payload), Ok(Claims { expires }));
        }
    }

    #[test]
    fn nobody_is_asked_about_what_is_no_token_of_ours() {
        let ours = |exp: i64| format!(r#"{{"aud": ["maplatency-operator"], "exp": {exp}}}"#);
        assert_eq!(read(&ours(NOW)), Err(Refusal::Expired));
        assert_eq!(
            read(&ours(i64::MAX)),
            Err(Refusal::Malformed("ends at no time"))
        );
        let other = format!(
            r#"{{"aud": ["https://kubernetes.default.svc"], "exp": {}}}"#,
            NOW + 9
        );
        assert_eq!(read(&other), Err(Refusal::OtherAudience));
        for wrong in [
            "",
            "{}",
            "[]",
            r#"{"aud": "maplatency-operator"}"#,
            "{\"exp\"",
        ] {
            let refusal = read(wrong).unwrap_err();
            assert!(
                matches!(refusal, Refusal::Malformed(_)),
                "{wrong}: {refusal}"
            );
        }
        for wrong in ["garbage", "a.b", "a.b.c.d", "...", "a.!.c"] {
            let Ok(token) = Token::new(wrong.to_owned()) else {
                continue;
            };
            let refusal = Claims::read(&token, now()).unwrap_err();
            assert!(
                matches!(refusal, Refusal::Malformed(_)),
                "{wrong}: {refusal}"
            );
        }
    }

    fn answer(change: impl FnOnce(&mut serde_json::Value)) -> Result<Caller, Refusal> {
        let mut status = json!({
            "authenticated": true,
            "audiences": [AUDIENCE],
            "user": {
                "username": USER,
                "extra": {NODE: ["node-a"], POD: ["maplatency-agent-x"]},
            },
        });
        change(&mut status);
        let status: TokenReviewStatus = serde_json::from_value(status).unwrap();
        verdict(&status, USER, Claims { expires: now() })
    }

    #[test]
    fn an_agents_token_tells_its_node_and_its_pod() {
        let caller = answer(|_| ()).unwrap();
        assert_eq!(caller.node, "node-a");
        assert_eq!(caller.pod, "maplatency-agent-x");
    }

    #[test]
    fn everything_that_is_missing_in_the_answer_is_a_refusal() {
        let refused = |change: fn(&mut serde_json::Value)| answer(change).unwrap_err();
        assert_eq!(
            refused(|it| it["authenticated"] = json!(false)),
            Refusal::Rejected
        );
        assert_eq!(refused(|it| *it = json!({})), Refusal::Rejected);
        assert_eq!(refused(|it| it["user"] = json!(null)), Refusal::Rejected);
        assert_eq!(
            refused(|it| it["audiences"] = json!(["x"])),
            Refusal::OtherAudience
        );
        assert_eq!(
            refused(|it| it["audiences"] = json!(null)),
            Refusal::OtherAudience
        );
        assert_eq!(
            refused(|it| it["user"]["extra"] = json!(null)),
            Refusal::NoNode
        );
        assert_eq!(
            refused(|it| it["user"]["extra"][NODE] = json!([])),
            Refusal::NoNode
        );
        assert_eq!(
            refused(|it| it["user"]["extra"][NODE] = json!(["a", "b"])),
            Refusal::NoNode
        );
        assert_eq!(
            refused(|it| it["user"]["extra"][POD] = json!([])),
            Refusal::NoNode
        );
        let other = "system:serviceaccount:default:maplatency-agent";
        let refusal = answer(|it| it["user"]["username"] = json!(other)).unwrap_err();
        assert!(matches!(refusal, Refusal::OtherAccount { found, .. } if found == other));
        assert_eq!(UserInfo::default().username, None);
    }
}
