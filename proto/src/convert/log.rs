//! The enrollment log, for whoever reads all of it.

use crate::message::LogPart;
use crate::wire;

/// Encodes a part of the log.
pub fn log_part_to_wire(part: LogPart) -> wire::LogPart {
    let LogPart { head, entries } = part;
    wire::LogPart { head, entries }
}

/// Decodes a part of the log. Whether its entries are some is seen where they are hashed.
pub fn log_part_from_wire(message: wire::LogPart) -> LogPart {
    let wire::LogPart { head, entries } = message;
    LogPart { head, entries }
}
