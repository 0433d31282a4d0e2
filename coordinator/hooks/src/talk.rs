//! What a program is told and says, a step at a time: no step waits, so nobody who holds its output keeps anything of ours.

use std::io::{self, Read};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout};

use ends::{Pipe, Source, Telling};

/// A part of what is read at a time.
const PART_BYTES: usize = 4 << 10;

/// The input and the output of a program that runs.
pub(crate) struct Talk {
    input: Telling,
    said: Hearing<ChildStdout>,
    complained: Hearing<ChildStderr>,
}

impl Talk {
    /// Takes the program's ends: `input` is for it, and of what it says and complains so many bytes and one are kept.
    pub(crate) fn new(
        child: &mut Child,
        input: &[u8],
        (said, complained): (usize, usize),
    ) -> io::Result<Self> {
        Ok(Self {
            input: Telling::new(child.stdin.take(), input)?,
            said: Hearing::new(child.stdout.take(), said)?,
            complained: Hearing::new(child.stderr.take(), complained)?,
        })
    }

    /// Goes as far as is possible at once. Says whether anything moved. One that does not read its input, or closed its errors, is no
    /// fault.
    pub(crate) fn step(&mut self) -> io::Result<bool> {
        let told = self.input.step();
        let complained = self.complained.step().unwrap_or(false);
        Ok(self.said.step()? || told || complained)
    }

    /// Whether its output is closed.
    pub(crate) fn has_said_all(&self) -> bool {
        self.said.from.is_none()
    }

    /// What it said so far.
    pub(crate) fn said(&mut self) -> &mut Vec<u8> {
        &mut self.said.bytes
    }

    /// What it complained of so far.
    pub(crate) fn complaint(&self) -> &[u8] {
        &self.complained.bytes
    }
}

/// What is heard of one output; further bytes are read and thrown away.
struct Hearing<R> {
    from: Option<Source<R>>,
    bytes: Vec<u8>,
    most: usize,
}

impl<R: Pipe> Hearing<R> {
    fn new(from: Option<R>, most: usize) -> io::Result<Self> {
        Ok(Self { from: from.map(Source::new).transpose()?, bytes: Vec::new(), most })
    }

    fn step(&mut self) -> io::Result<bool> {
        let Some(from) = &mut self.from else { return Ok(false) };
        match from.read() {
            Ok(part) if part.is_empty() => self.from = None,
            Ok(part) => {
                let room = (self.most + 1).saturating_sub(self.bytes.len());
                self.bytes.extend(part.iter().take(room));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                self.from = None;
                return Err(error);
            }
        }
        Ok(true)
    }
}

#[cfg(unix)]
mod ends {
    use std::io::{self, Write};
    use std::os::fd::AsFd;

    use super::{ChildStdin, PART_BYTES, Read};

    /// What can be read without waiting.
    pub(super) trait Pipe: Read + AsFd {}

    impl<R: Read + AsFd> Pipe for R {}

    /// An output that is read where something is there.
    pub(super) struct Source<R>(R);

    impl<R: Pipe> Source<R> {
        pub(super) fn new(pipe: R) -> io::Result<Self> {
            rustix::io::ioctl_fionbio(&pipe, true)?;
            Ok(Self(pipe))
        }

        /// The next part; an empty one at the end.
        pub(super) fn read(&mut self) -> io::Result<Vec<u8>> {
            let mut part = vec![0; PART_BYTES];
            let length = self.0.read(&mut part)?;
            part.truncate(length);
            Ok(part)
        }
    }

    /// An input, and what is to be written to it.
    pub(super) struct Telling {
        to: Option<ChildStdin>,
        rest: Vec<u8>,
    }

    impl Telling {
        pub(super) fn new(to: Option<ChildStdin>, input: &[u8]) -> io::Result<Self> {
            if let Some(to) = &to {
                rustix::io::ioctl_fionbio(to, true)?;
            }
            Ok(Self { to, rest: input.to_vec() })
        }

        /// Writes what is taken at once. The input ends behind it, or where nobody takes it any more.
        pub(super) fn step(&mut self) -> bool {
            let Some(to) = &mut self.to else { return false };
            match to.write(&self.rest) {
                Ok(written) => {
                    self.rest.drain(..written);
                    if self.rest.is_empty() {
                        self.to = None;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.to = None,
            }
            true
        }
    }
}

/// Where no pipe can be read without waiting, a thread waits for each: it stays for as long as somebody holds the other end.
#[cfg(not(unix))]
#[expect(clippy::disallowed_methods, reason = "IO shell: a thread waits for a pipe")]
mod ends {
    use std::io::{self, Write};
    use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
    use std::thread;

    use super::{ChildStdin, PART_BYTES, Read};

    pub(super) trait Pipe: Read + Send + 'static {}

    impl<R: Read + Send + 'static> Pipe for R {}

    pub(super) struct Source<R>(Receiver<io::Result<Vec<u8>>>, std::marker::PhantomData<R>);

    impl<R: Pipe> Source<R> {
        pub(super) fn new(mut pipe: R) -> io::Result<Self> {
            let (send, receive) = sync_channel(1);
            thread::spawn(move || {
                loop {
                    let mut part = vec![0; PART_BYTES];
                    let read = pipe.read(&mut part).map(|length| {
                        part.truncate(length);
                        part
                    });
                    let is_last = !matches!(&read, Ok(part) if !part.is_empty());
                    if send.send(read).is_err() || is_last {
                        return;
                    }
                }
            });
            Ok(Self(receive, std::marker::PhantomData))
        }

        pub(super) fn read(&mut self) -> io::Result<Vec<u8>> {
            match self.0.try_recv() {
                Ok(read) => read,
                Err(TryRecvError::Empty) => Err(io::ErrorKind::WouldBlock.into()),
                Err(TryRecvError::Disconnected) => Ok(Vec::new()),
            }
        }
    }

    pub(super) struct Telling;

    impl Telling {
        pub(super) fn new(to: Option<ChildStdin>, input: &[u8]) -> io::Result<Self> {
            let input = input.to_vec();
            thread::spawn(move || to.map(|mut to| to.write_all(&input)));
            Ok(Self)
        }

        pub(super) fn step(&mut self) -> bool {
            false
        }
    }
}
