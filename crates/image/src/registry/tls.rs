//! TLS: whom we trust, and with which certificate of ours we come.
//!
//! Trusted are the system's authorities (`SSL_CERT_FILE` and `SSL_CERT_DIR` are heeded) and those
//! of the registry's own folder (containers-certs.d(5)): `*.crt` are authorities, `*.cert` with the
//! `*.key` of the same name our own certificate. A machine without any authority is no error by
//! itself: it shows when a certificate has to be checked.

use crate::{Error, Result};
use rcon_sys::errors::in_words;
use rcon_sys::passwd::config_dir;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A configuration, and what it lacks.
pub(crate) struct Tls {
    pub config: ClientConfig,
    /// There is no authority at all.
    pub no_roots: bool,
}

/// Set up TLS for `registry` (`HOST[:PORT]`).
pub(crate) fn set_up(registry: &str, cert_dir: Option<&Path>, insecure: bool) -> Result<Tls> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let own = OwnFiles::read(registry, cert_dir)?;
    let mut roots = RootCertStore::empty();
    if !insecure {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots.add_parsable_certificates(own.authorities.iter().cloned());
    }
    let no_roots = roots.is_empty();
    let verifier = Verifier {
        inner: if insecure || no_roots {
            None
        } else {
            let built =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                    .build();
            Some(built.map_err(|e| Error::Tls(e.to_string()))?)
        },
        insecure,
        pinned: own.authorities,
        provider: provider.clone(),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Tls(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match own.identity {
        Some((file, chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|e| Error::Tls(format!("{}: {e}", file.display())))?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Tls { config, no_roots })
}

/// The usual check, and two exceptions the user can ask for.
#[derive(Debug)]
struct Verifier {
    /// `None` without authorities.
    inner: Option<Arc<WebPkiServerVerifier>>,
    /// `--tls-verify=false`.
    insecure: bool,
    /// A self-signed server certificate that lies in the registry's folder is trusted as such,
    /// though it is no authority by the letter of X.509 (or is one, and no server's).
    pinned: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.insecure {
            return Ok(ServerCertVerified::assertion());
        }
        if self
            .pinned
            .iter()
            .any(|p| p.as_ref() == end_entity.as_ref())
        {
            rustls::client::verify_server_name(
                &ParsedCertificate::try_from(end_entity)?,
                server_name,
            )?;
            return Ok(ServerCertVerified::assertion());
        }
        match &self.inner {
            Some(inner) => {
                inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            None => Err(rustls::CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

type Identity = (
    PathBuf,
    Vec<CertificateDer<'static>>,
    PrivateKeyDer<'static>,
);

/// What a folder of certificates holds.
#[derive(Default)]
struct OwnFiles {
    authorities: Vec<CertificateDer<'static>>,
    identity: Option<Identity>,
}

impl OwnFiles {
    fn read(registry: &str, cert_dir: Option<&Path>) -> Result<OwnFiles> {
        // Named by the user: it must be readable. The usual places need not be there.
        if let Some(dir) = cert_dir {
            return OwnFiles::read_dir(dir)
                .map_err(|e| Error::io("reading certificates in", dir)(e))?;
        }
        let user = config_dir().map(|d| d.join("containers/certs.d"));
        let places = [
            Path::new("/etc/containers/certs.d"),
            Path::new("/etc/docker/certs.d"),
        ];
        let places = user.iter().map(PathBuf::as_path).chain(places);
        for dir in places.map(|p| p.join(registry)) {
            match OwnFiles::read_dir(&dir) {
                Ok(found) => return found,
                Err(_) => continue,
            }
        }
        Ok(OwnFiles::default())
    }

    /// The outer error: there is no such folder for us. The inner: what is in it is no good.
    fn read_dir(dir: &Path) -> io::Result<Result<OwnFiles>> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(dir)?
            .filter_map(|e| Some(e.ok()?.path()))
            .collect();
        files.sort();
        Ok(OwnFiles::read_files(&files))
    }

    fn read_files(files: &[PathBuf]) -> Result<OwnFiles> {
        let mut found = OwnFiles::default();
        for file in files {
            match file.extension().and_then(|e| e.to_str()) {
                Some("crt") => found.authorities.extend(certificates(file)?),
                Some("cert") => {
                    let key = file.with_extension("key");
                    let chain = certificates(file)?;
                    let key = PrivateKeyDer::from_pem_slice(&read(&key)?)
                        .map_err(|e| Error::Tls(format!("{}: {e}", key.display())))?;
                    found.identity = Some((file.clone(), chain, key));
                }
                Some("key") if !file.with_extension("cert").exists() => {
                    return Err(Error::Tls(format!(
                        "{} has no certificate beside it ({} is missing)",
                        file.display(),
                        file.with_extension("cert").display()
                    )));
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).map_err(|e| Error::Tls(format!("{}: {}", file.display(), in_words(&e))))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(file)?).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(Error::Tls(format!(
            "{} holds no certificate in PEM form",
            file.display()
        ))),
        Err(e) => Err(Error::Tls(format!("{}: {e}", file.display()))),
    }
}

/// A TLS error in the words users look for.
pub(crate) fn words(error: &rustls::Error) -> Option<String> {
    use rustls::CertificateError as C;
    let rustls::Error::InvalidCertificate(why) = error else {
        return None;
    };
    Some(match why {
        C::UnknownIssuer => "certificate signed by unknown authority".to_owned(),
        C::Expired | C::ExpiredContext { .. } => "certificate has expired".to_owned(),
        C::NotValidYet | C::NotValidYetContext { .. } => "certificate is not valid yet".to_owned(),
        C::NotValidForName => "certificate is not valid for this name".to_owned(),
        C::NotValidForNameContext {
            expected,
            presented,
        } => format!(
            "certificate is valid for {}, not {}",
            if presented.is_empty() {
                "no name".to_owned()
            } else {
                presented.join(", ")
            },
            expected.to_str()
        ),
        C::Revoked => "certificate was revoked".to_owned(),
        // It has no name for this one.
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "certificate signed by unknown authority: it is self-signed, as an authority's own is"
                .to_owned()
        }
        other => format!("{other}"),
    })
}
