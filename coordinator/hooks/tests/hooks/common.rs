//! What the suites of hooks share: authorities, requests, and services on this machine.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const DAY: u64 = 24 * 3600;
pub(crate) const NAME: &str = "nightshift:device:000102030405060708090a0b0c0d0e0f";

/// An authority, and its certificate.
pub(crate) struct Authority {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) pem: String,
}

pub(crate) fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

pub(crate) fn at(unix_secs: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(i64::try_from(unix_secs).unwrap()).unwrap()
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = at(NOW - 900 * DAY);
    params.not_after = at(NOW + 900 * DAY);
    params
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let (key, params) = (key(), authority_params(name));
        let certificate = params.self_signed(&key).unwrap();
        let pem = certificate.pem();
        Self { issuer: Issuer::new(params, key), certificate: certificate.into(), pem }
    }

    /// One below this one.
    pub(crate) fn below(&self, name: &str) -> Self {
        let (key, params) = (key(), authority_params(name));
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let pem = certificate.pem();
        Self { issuer: Issuer::new(params, key), certificate: certificate.into(), pem }
    }

    /// A certificate of a key, in PEM.
    pub(crate) fn sign(
        &self,
        key: &impl PublicKeyData,
        change: impl FnOnce(&mut CertificateParams),
    ) -> String {
        let mut params = CertificateParams::default();
        params.not_before = at(NOW - DAY);
        params.not_after = at(NOW + 30 * DAY);
        params.subject_alt_names = vec![SanType::URI(NAME.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        change(&mut params);
        params.signed_by(key, &self.issuer).unwrap().pem()
    }
}

/// What the certificate of a key is for that signs what a TPM says.
pub(crate) fn attestation_usage() -> ExtendedKeyUsagePurpose {
    ExtendedKeyUsagePurpose::Other(vec![2, 23, 133, 8, 3])
}

pub(crate) fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// A file that only its owner reads.
pub(crate) fn secret(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = file(folder, name, text);
    #[cfg(unix)]
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    path
}

/// A service on this machine that answers each request with these bytes, after a pause, and gives what it was asked.
pub(crate) fn service(
    answer: impl Fn(&str) -> Vec<u8> + Send + 'static,
    pause: Duration,
) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (send, receive) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let asked = read_request(&mut stream);
            thread::sleep(pause);
            // Whoever asked may have gone.
            let body = asked.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            drop(stream.write_all(&answer(body)));
            if send.send(asked).is_err() {
                return;
            }
        }
    });
    (address, receive)
}

pub(crate) fn read_request(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length:")
                    .map(|value| value.trim().parse::<usize>())
            });
            if length.is_some_and(|length| length.is_ok_and(|length| body.len() >= length)) {
                return text;
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return String::from_utf8_lossy(&bytes).into_owned(),
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

/// An answer of HTTP.
pub(crate) fn answer(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// An address at which nobody listens.
pub(crate) fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Whoever connects is kept waiting, for ever.
pub(crate) fn silent() -> (SocketAddr, thread::JoinHandle<Vec<TcpStream>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (address, thread::spawn(move || listener.incoming().take(2).filter_map(Result::ok).collect()))
}
