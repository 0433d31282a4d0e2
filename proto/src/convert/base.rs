//! The files of a base that a coordinator serves.

use super::{WireError, digest, error};
use crate::base::{BaseFile, check_files};
use crate::ids::Digest;
use crate::wire;

/// Encodes the question for a base's files.
pub fn describe_base_to_wire(base: Digest) -> wire::DescribeBaseRequest {
    wire::DescribeBaseRequest { base: base.0.to_vec() }
}

/// Decodes the question for a base's files.
pub fn describe_base_from_wire(message: &wire::DescribeBaseRequest) -> Result<Digest, WireError> {
    digest("base", &message.base)
}

/// Encodes a base's files.
pub fn base_files_to_wire(files: &[BaseFile]) -> wire::BaseFiles {
    let files = files.iter().map(|file| wire::BaseFile {
        name: file.name.clone(),
        bytes: file.bytes,
        digest: file.digest.0.to_vec(),
    });
    wire::BaseFiles { files: files.collect() }
}

/// Decodes a base's files; what is no name of a file, or comes twice, is refused.
pub fn base_files_from_wire(message: wire::BaseFiles) -> Result<Vec<BaseFile>, WireError> {
    const WHAT: &str = "list of a base's files";
    let file = |file: wire::BaseFile| {
        Ok(BaseFile { digest: digest(WHAT, &file.digest)?, name: file.name, bytes: file.bytes })
    };
    let files = message.files.into_iter().map(file).collect::<Result<Vec<_>, WireError>>()?;
    check_files(&files).map_err(|why| error(WHAT, why))?;
    Ok(files)
}
