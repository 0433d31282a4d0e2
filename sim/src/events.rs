//! Event files as `TensorBoard` reads them: records of protobuf bytes, each with a masked CRC-32C of its length and of itself
//! (`tensorflow/core/lib/io/record_writer.h`, `tensorflow/core/util/event.proto`).

use prost::Message;

/// The polynomial of Castagnoli, as iSCSI has it.
const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// One number of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// Under which it is drawn; what stands before a `/` is a group.
    pub tag: String,
    /// Along which it is drawn.
    pub step: i64,
    /// Seconds since 1970.
    pub at_secs: f64,
    /// The number.
    pub value: f32,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// A whole file.
pub fn file(scalars: &[Scalar]) -> Vec<u8> {
    let begun = scalars.first().map_or(0.0, |scalar| scalar.at_secs);
    let version =
        Event { wall_time: begun, step: 0, file_version: Some("brain.Event:2".to_owned()), summary: None };
    let event = |scalar: &Scalar| Event {
        wall_time: scalar.at_secs,
        step: scalar.step,
        file_version: None,
        summary: Some(Summary {
            value: vec![SummaryValue { tag: scalar.tag.clone(), simple_value: Some(scalar.value) }],
        }),
    };
    std::iter::once(version)
        .chain(scalars.iter().map(event))
        .flat_map(|event| record(&event.encode_to_vec()))
        .collect()
}

fn record(bytes: &[u8]) -> Vec<u8> {
    let len = (bytes.len() as u64).to_le_bytes();
    [&len, &masked(&len).to_le_bytes()[..], bytes, &masked(bytes).to_le_bytes()].concat()
}

/// A checksum of bytes that hold checksums is a bad one, so it is turned and moved.
fn masked(bytes: &[u8]) -> u32 {
    CRC.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_as_tensorflow_writes_them() {
        // The check value of CRC-32C, and the first record of an event file at time 0, as TensorFlow's writer gives it.
        assert_eq!(CRC.checksum(b"123456789"), 0xe306_9283);
        let bytes = file(&[]);
        assert_eq!(bytes[..8], [15, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&bytes[12..27], b"\x1a\x0dbrain.Event:2");
        assert_eq!(bytes.len(), 8 + 4 + 15 + 4);
        let scalar = Scalar { tag: "loss".to_owned(), step: 3, at_secs: 9.5, value: 0.25 };
        let whole = file(std::slice::from_ref(&scalar));
        // The first record has a time too, of nine bytes; then comes the length of the second with its checksum.
        let event = Event::decode(&whole[bytes.len() + 9 + 12..whole.len() - 4]).unwrap();
        assert_eq!((event.step, event.wall_time), (3, 9.5));
        assert_eq!(event.summary.unwrap().value[0].simple_value, Some(0.25));
    }
}
