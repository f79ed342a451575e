//! The rights that the accounts of the chart have, and that they have no others.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};

use super::shared::{NAMESPACE, Product, installed};

/// A resource, the names that a right is limited to, and a verb.
type Right = (String, String, String);

/// What the operator may do everywhere.
const EVERYWHERE: &[(&str, &str, &str)] = &[
    ("maplatencyprobes.maplatency.dev", "", "list watch"),
    ("maplatencyprobes.maplatency.dev/status", "", "patch"),
    ("nodes", "", "list watch"),
    ("tokenreviews.authentication.k8s.io", "", "create"),
];
/// In its own namespace.
const AT_HOME: &[(&str, &str, &str)] = &[
    ("configmaps", "", "create"),
    ("configmaps", "maplatency-operator-ca", "get update"),
    ("daemonsets.apps", "", "list watch create"),
    ("daemonsets.apps", "maplatency-agent", "get patch delete"),
    ("deployments.apps", "maplatency-operator", "get"),
    ("leases.coordination.k8s.io", "", "create"),
    (
        "leases.coordination.k8s.io",
        "maplatency-operator",
        "get update",
    ),
    ("secrets", "", "create"),
    ("secrets", "maplatency-operator-ca", "get update"),
];
/// There and in `default`, where events of probes are.
const EVENTS: &[(&str, &str, &str)] = &[("events.events.k8s.io", "", "create patch")];

#[tokio::test]
#[ignore = "needs a cluster: make e2e"]
async fn the_operator_may_do_what_it_needs_and_nothing_else_and_agents_nothing() -> Result<()> {
    installed(async |product| {
        for (namespace, expected) in [
            (NAMESPACE, &[EVERYWHERE, EVENTS, AT_HOME][..]),
            ("default", &[EVERYWHERE, EVENTS]),
            ("kube-system", &[EVERYWHERE]),
        ] {
            // What every account of a cluster may do, such as asking what it may do.
            let everyone = rights(product, "nobody", namespace).await?;
            let operator = rights(product, "maplatency-operator", namespace).await?;
            let expected = expected.iter().copied().flatten().flat_map(|&it| each(it));
            let operator: BTreeSet<_> = &operator - &everyone;
            assert_eq!(operator, expected.collect(), "the operator in {namespace}");
            let agent = rights(product, "maplatency-agent", namespace).await?;
            assert_eq!(agent, everyone, "agents in {namespace}");
        }
        Ok(())
    })
    .await
}

fn each((resource, names, verbs): (&str, &str, &str)) -> Vec<Right> {
    let of = |verb: &str| (resource.to_owned(), names.to_owned(), verb.to_owned());
    verbs.split(' ').map(of).collect()
}

/// What an account of our namespace may do to objects of a namespace.
async fn rights(product: &Product, account: &str, namespace: &str) -> Result<BTreeSet<Right>> {
    let account = format!("--as=system:serviceaccount:{NAMESPACE}:{account}");
    let list = [
        "auth",
        "can-i",
        "--list",
        "--no-headers",
        "--namespace",
        namespace,
        &account,
    ];
    let table = product.kubectl(&list).await?;
    let mut rights = BTreeSet::new();
    for row in table.lines() {
        // Resource, then in brackets: paths, names and verbs.
        let mut columns = row.split('[').map(|it| it.trim().trim_end_matches(']'));
        let mut next = || columns.next().with_context(|| row.to_owned());
        let (resource, paths) = (next()?, next()?);
        let (names, verbs) = (next()?, next()?);
        rights.extend(each((&format!("{resource}{paths}"), names, verbs)));
    }
    Ok(rights)
}
