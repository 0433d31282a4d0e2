//! Frames on a pipe: a length, and so many bytes of protobuf.
//!
//! The length is four bytes, little-endian, and is held against [`MOST_BYTES`] before any memory is taken for it. What is
//! larger than a frame goes in parts ([`super::message::Part`]), whose sum the receiver bounds by what it expects.

use std::io::{self, ErrorKind, Read, Write};

use prost::Message;
use zeroize::Zeroizing;

/// The most bytes of a frame: a part of a mebibyte with what is around it, or the largest plan.
pub(super) const MOST_BYTES: usize = 2 << 20;

/// Why a frame could not be read. It says nothing of what was in it.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The pipe.
    #[error("the pipe cannot be read: {0}")]
    Pipe(#[from] io::Error),
    /// Nobody writes any more, and the frame is not whole.
    #[error("a frame breaks off")]
    BrokenOff,
    /// A frame that nobody may send.
    #[error("a frame of {found} bytes, where at most {MOST_BYTES} are read")]
    TooLong {
        /// Its length as it says.
        found: u32,
    },
    /// Bytes that are no message.
    #[error("a frame that is no message")]
    NoMessage,
}

/// Writes a message as a frame, and flushes. What was encoded is wiped.
pub(super) fn write(pipe: &mut impl Write, message: &impl Message) -> io::Result<()> {
    let len = message.encoded_len();
    let header = u32::try_from(len).ok().filter(|_| len <= MOST_BYTES);
    let header = header.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "a message is too long"))?;
    let mut frame = Zeroizing::new(Vec::with_capacity(4 + len));
    frame.extend(header.to_le_bytes());
    message.encode(&mut *frame).map_err(io::Error::other)?;
    pipe.write_all(&frame)?;
    pipe.flush()
}

/// Reads the next message; nothing where the pipe has come to its end between two frames. What was read is wiped.
pub(super) fn read<M: Message + Default>(pipe: &mut impl Read) -> Result<Option<M>, FrameError> {
    let mut header = [0; 4];
    let mut got = 0;
    while let Some(rest) = header.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match pipe.read(rest) {
            Ok(0) if got == 0 => return Ok(None),
            Ok(0) => return Err(FrameError::BrokenOff),
            Ok(more) => got += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let found = u32::from_le_bytes(header);
    let len = usize::try_from(found).ok().filter(|len| *len <= MOST_BYTES);
    let len = len.ok_or(FrameError::TooLong { found })?;
    let mut frame = Zeroizing::new(vec![0; len]);
    pipe.read_exact(&mut frame).map_err(|error| {
        if error.kind() == ErrorKind::UnexpectedEof { FrameError::BrokenOff } else { error.into() }
    })?;
    M::decode(frame.as_slice()).map(Some).map_err(|_| FrameError::NoMessage)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::message::{FromTrainer, Part, Said};
    use super::*;

    fn part(kind: i32, bytes: Vec<u8>, is_last: bool) -> FromTrainer {
        FromTrainer { said: Some(Said::Part(Part { kind, bytes, is_last })) }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back_and_then_comes_the_end(
            frames in prop::collection::vec((0_i32..9, prop::collection::vec(any::<u8>(), 0..300), any::<bool>()), 0..5),
        ) {
            let mut pipe = Vec::new();
            for (kind, bytes, is_last) in &frames {
                write(&mut pipe, &part(*kind, bytes.clone(), *is_last)).unwrap();
            }
            let mut rest = pipe.as_slice();
            for (kind, bytes, is_last) in frames {
                let found: FromTrainer = read(&mut rest).unwrap().unwrap();
                prop_assert_eq!(found, part(kind, bytes, is_last));
            }
            prop_assert!(read::<FromTrainer>(&mut rest).unwrap().is_none());
        }

        #[test]
        fn a_frame_that_breaks_off_anywhere_is_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 1_usize..1000,
        ) {
            let mut pipe = Vec::new();
            write(&mut pipe, &part(1, bytes, true)).unwrap();
            let len = pipe.len();
            let mut rest = &pipe[..len - 1 - cut % (len - 1)];
            prop_assert!(matches!(read::<FromTrainer>(&mut rest), Err(FrameError::BrokenOff)));
        }

        #[test]
        fn no_bytes_make_it_panic_or_take_much_memory(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut rest = bytes.as_slice();
            while let Ok(Some(_)) = read::<FromTrainer>(&mut rest) {}
        }
    }

    /// Gives a header, and fails whoever asks for what it announces.
    struct Announces([u8; 4], usize);

    impl Read for Announces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            assert!(self.1 < 4, "nothing behind the header is asked for");
            buffer[0] = self.0[self.1];
            self.1 += 1;
            Ok(1)
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_by_its_header_alone() {
        for found in [u32::try_from(MOST_BYTES).unwrap() + 1, u32::MAX] {
            let error = read::<FromTrainer>(&mut Announces(found.to_le_bytes(), 0)).unwrap_err();
            assert!(matches!(error, FrameError::TooLong { found: said } if said == found), "{error}");
        }
        let long = part(1, vec![0; MOST_BYTES], true);
        assert!(write(&mut Vec::new(), &long).is_err());
    }

    #[test]
    fn bytes_of_the_right_length_that_are_no_message_are_refused() {
        let garbage = [4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
        assert!(matches!(read::<FromTrainer>(&mut garbage.as_slice()), Err(FrameError::NoMessage)));
    }
}
