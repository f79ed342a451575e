//! The keys and certificates of one control plane, made anew for each and never reused.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// The names under which clients reach the API server, inside and outside a cluster. 10.96.0.1 is
/// the first address of the service network, which is the API server's by definition.
const SERVER_NAMES: [&str; 5] = [
    "127.0.0.1",
    "localhost",
    "kubernetes",
    "kubernetes.default.svc",
    "10.96.0.1",
];

/// Writes `ca`, `apiserver` and `admin` certificates with their keys, and the `sa` key pair, into
/// `folder`.
pub(super) fn write(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
    let ca = authority()?;
    store(folder, "ca.crt", &ca.pem())?;

    let server = SERVER_NAMES.map(str::to_owned).to_vec();
    let mut apiserver = CertificateParams::new(server).context("a server name is invalid")?;
    apiserver.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    sign(folder, "apiserver", apiserver, &ca)?;

    let mut admin = CertificateParams::default();
    // RBAC lets this group do everything, whatever its rules say.
    let name = &mut admin.distinguished_name;
    name.push(DnType::OrganizationName, "system:masters");
    name.push(DnType::CommonName, "admin");
    admin.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    sign(folder, "admin", admin, &ca)?;

    let tokens = KeyPair::generate().context("could not make the token key")?;
    store(folder, "sa.key", &tokens.serialize_pem())?;
    store(folder, "sa.pub", &tokens.public_key_pem())
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "maplatency-e2e");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().context("could not make the key of the authority")?;
    CertifiedIssuer::self_signed(params, key).context("could not sign the authority")
}

fn sign(
    folder: &Path,
    name: &str,
    mut params: CertificateParams,
    ca: &CertifiedIssuer<'static, KeyPair>,
) -> Result<()> {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().with_context(|| format!("could not make the key of {name}"))?;
    let certificate = params
        .signed_by(&key, ca)
        .with_context(|| format!("could not sign the certificate of {name}"))?;
    store(folder, &format!("{name}.crt"), &certificate.pem())?;
    store(folder, &format!("{name}.key"), &key.serialize_pem())
}

fn store(folder: &Path, name: &str, pem: &str) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, pem).with_context(|| format!("could not write {}", path.display()))
}
