//! What a hub says of the files of a revision, and whether a file is what it says.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use formats::BLOCK_BYTES;
use serde::Deserialize;

/// What the hub says of a revision.
#[derive(Deserialize)]
pub(super) struct Listing {
    pub(super) sha: String,
    pub(super) siblings: Vec<Listed>,
}

/// What it says of a file.
#[derive(Deserialize)]
pub(super) struct Listed {
    pub(super) rfilename: String,
    pub(super) size: Option<u64>,
    #[serde(rename = "blobId")]
    pub(super) blob_id: Option<String>,
    pub(super) lfs: Option<Lfs>,
}

#[derive(Deserialize)]
pub(super) struct Lfs {
    pub(super) sha256: Option<String>,
}

/// What is wrong with a fetched file, if something is.
pub(super) fn wrong(path: &Path, listed: &Listed) -> std::io::Result<Option<String>> {
    let len = path.metadata()?.len();
    if let Some(size) = listed.size.filter(|size| *size != len) {
        return Ok(Some(format!("it has {len} bytes instead of {size}")));
    }
    let Some(announced) = Announced::of(listed, len) else { return Ok(None) };
    let mut context = ring::digest::Context::new(announced.algorithm);
    context.update(announced.before.as_bytes());
    let (mut file, mut block) = (File::open(path)?, vec![0; BLOCK_BYTES]);
    loop {
        match file.read(&mut block)? {
            0 => break,
            read => context.update(&block[..read]),
        }
    }
    let found = hex::encode(context.finish());
    let same = found.eq_ignore_ascii_case(announced.digest);
    Ok((!same).then(|| format!("its {} is {found} instead of {}", announced.name, announced.digest)))
}

/// What the hub says that a file's content hashes to.
struct Announced<'a> {
    name: &'static str,
    algorithm: &'static ring::digest::Algorithm,
    /// What is hashed before the content.
    before: String,
    digest: &'a str,
}

impl<'a> Announced<'a> {
    /// For a file of so many bytes; none where the hub says nothing that is known.
    fn of(listed: &'a Listed, len: u64) -> Option<Self> {
        if let Some(lfs) = &listed.lfs {
            let digest = lfs.sha256.as_deref()?;
            let algorithm = &ring::digest::SHA256;
            return Some(Self { name: "SHA-256", algorithm, before: String::new(), digest });
        }
        let digest = listed.blob_id.as_deref()?;
        let algorithm = match digest.len() {
            40 => &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
            64 => &ring::digest::SHA256,
            _ => return None,
        };
        Some(Self { name: "git blob", algorithm, before: format!("blob {len}\0"), digest })
    }
}
