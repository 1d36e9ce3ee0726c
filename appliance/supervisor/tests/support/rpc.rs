//! A client that speaks Borg's protocol by hand, and so asks for what no `borg` asks for: msgpack on the standard streams of
//! `borg serve` (`remote.py` of Borg 1.1 to 1.4).

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

/// An argument of a call.
#[derive(Clone, Copy)]
pub enum Arg<'a> {
    Flag(bool),
    Number(u64),
    Text(&'a str),
    Bytes(&'a [u8]),
}

/// A connection to `borg serve`.
pub struct Hostile {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    calls: u64,
}

impl Hostile {
    /// Starts `borg serve`, or what leads to it.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        Self {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
            calls: 0,
        }
    }

    /// Calls a method. An error is the name of Borg's exception, or `gone` once the server has ended.
    pub fn call(&mut self, method: &str, arguments: &[(&str, Arg<'_>)]) -> Result<Value, String> {
        self.calls += 1;
        let mut bytes = vec![0x83];
        text(&mut bytes, "i");
        number(&mut bytes, self.calls);
        text(&mut bytes, "m");
        text(&mut bytes, method);
        text(&mut bytes, "a");
        bytes.push(0x80 | u8::try_from(arguments.len()).unwrap());
        for (name, value) in arguments {
            text(&mut bytes, name);
            match value {
                Arg::Flag(flag) => bytes.push(0xc2 + u8::from(*flag)),
                Arg::Number(value) => number(&mut bytes, *value),
                Arg::Text(value) => text(&mut bytes, value),
                Arg::Bytes(value) => {
                    // As a string: Borg takes no other bytes.
                    bytes.push(0xdb);
                    bytes.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
                    bytes.extend(*value);
                }
            }
        }
        self.send(&bytes).map_err(|_| "gone".to_owned())?;
        let Value::Map(answer) = self.receive()? else {
            panic!("an answer of another form");
        };
        let of = |name: &str| answer.iter().find(|(key, _)| *key == Value::Bytes(name.into()));
        match (of("exception_class"), of("r")) {
            (Some((_, Value::Bytes(class))), _) => Err(String::from_utf8_lossy(class).into_owned()),
            (None, Some((_, result))) => Ok(result.clone()),
            _ => panic!("an answer without a result: {answer:?}"),
        }
    }

    /// Sends whatever bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let input = self.input.as_mut().ok_or(ErrorKind::BrokenPipe)?;
        input.write_all(bytes)?;
        input.flush()
    }

    fn receive(&mut self) -> Result<Value, String> {
        value(&mut self.output).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => "gone".to_owned(),
            _ => panic!("{error}"),
        })
    }

    /// Opens a repository.
    pub fn open(&mut self, path: &str, more: &[(&str, Arg<'_>)]) -> Result<Value, String> {
        let mut arguments = vec![("path", Arg::Text(path))];
        arguments.extend(more);
        self.call("open", &arguments)
    }

    /// Says no more, and waits until the server has ended.
    pub fn close(mut self) -> ExitStatus {
        drop(self.input.take());
        let _ = io::copy(&mut self.output, &mut io::sink());
        self.child.wait().unwrap()
    }

    /// The process that was started.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    // An old string of 16 bits' length, which is what bytes are to Borg.
    bytes.push(0xda);
    bytes.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    bytes.extend(text.as_bytes());
}

fn number(bytes: &mut Vec<u8>, number: u64) {
    bytes.push(0xcf);
    bytes.extend(number.to_be_bytes());
}

/// What comes back, as far as anybody looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Map(Vec<(Value, Value)>),
    Other,
}

/// Reads one value (<https://github.com/msgpack/msgpack/blob/master/spec.md>).
fn value(from: &mut impl Read) -> io::Result<Value> {
    let kind = read(from, 1)?[0];
    let length = |from: &mut _, bytes: usize| -> io::Result<usize> {
        Ok(read(from, bytes)?
            .iter()
            .fold(0, |sum, byte| (sum << 8) | usize::from(*byte)))
    };
    match kind {
        0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => Ok(Value::Other),
        0x80..=0x8f => map(from, usize::from(kind & 0x0f)),
        0x90..=0x9f => list(from, usize::from(kind & 0x0f)),
        0xa0..=0xbf => read(from, usize::from(kind & 0x1f)).map(Value::Bytes),
        0xc4..=0xc6 | 0xd9..=0xdb => {
            let bytes = 1 << if kind < 0xd0 { kind - 0xc4 } else { kind - 0xd9 };
            let length = length(from, bytes)?;
            read(from, length).map(Value::Bytes)
        }
        0xca | 0xcb => read(from, 4 << (kind - 0xca)).map(|_| Value::Other),
        0xcc..=0xd3 => read(from, 1 << (kind & 3)).map(|_| Value::Other),
        0xdc | 0xdd => length(from, 2 << (kind - 0xdc)).and_then(|length| list(from, length)),
        0xde | 0xdf => length(from, 2 << (kind - 0xde)).and_then(|length| map(from, length)),
        _ => Err(io::Error::new(ErrorKind::InvalidData, format!("msgpack {kind:#x}"))),
    }
}

fn list(from: &mut impl Read, length: usize) -> io::Result<Value> {
    (0..length)
        .map(|_| value(from))
        .collect::<io::Result<_>>()
        .map(Value::List)
}

fn map(from: &mut impl Read, length: usize) -> io::Result<Value> {
    let pairs = (0..length).map(|_| Ok((value(from)?, value(from)?)));
    pairs.collect::<io::Result<_>>().map(Value::Map)
}

fn read(from: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}
