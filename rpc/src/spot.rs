//! Spot reads: reads at random places over connections of their own, one at a time, each by a thread
//! that does nothing else meanwhile (docs/format/spot_reads.md). Here is what both ends say.

use std::io::{self, IoSlice, Read, Write};

use bytes::Bytes;
use ozone_proto::blockd::{ReadReply, ReadRequest, SpotReply};
use ozone_types::limits::{CHECKSUM_PIECE, MESSAGE_MAX, READ_MAX};
use ozone_types::{ErrorCode, FsError, FsResult};
use prost::Message;

/// What either end says first: a name and the version, 1.
pub const GREETING: [u8; 8] = *b"OZSPOT\0\x01";
/// Bytes of a request without its length.
const REQUEST_MAX: usize = 4096;
/// Bytes of data in an answer: what was asked for, and what completes its first and last piece.
const DATA_MAX: usize = READ_MAX + 2 * CHECKSUM_PIECE;
/// Bytes that are read before it is known how many there are: the head of an answer, most of the time.
const FIRST: usize = 1024;

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Asks for a read.
pub fn send_request(to: &mut impl Write, request: &ReadRequest) -> io::Result<()> {
    to.write_all(&framed(request))
}

/// The next request. `None`: the client has closed the connection.
pub fn receive_request(from: &mut impl Read) -> io::Result<Option<ReadRequest>> {
    let mut buffer = [0; 4 + REQUEST_MAX];
    let mut got = 0;
    loop {
        match from.read(&mut buffer[got..]) {
            Ok(0) if got == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => got += n,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            Err(err) => return Err(err),
        }
        let Some((length, rest)) = buffer[..got].split_first_chunk() else { continue };
        let length = u32::from_be_bytes(*length) as usize;
        if length > REQUEST_MAX || rest.len() > length {
            return Err(invalid("no request of a spot read"));
        }
        if rest.len() == length {
            return ReadRequest::decode(rest).map(Some).map_err(io::Error::other);
        }
    }
}

/// Answers a request.
pub fn send_reply(to: &mut impl Write, answer: FsResult<ReadReply>) -> io::Result<()> {
    let (reply, data) = match answer {
        Ok(mut read) => {
            let data = std::mem::take(&mut read.data);
            let length = data.len() as u32; // at most DATA_MAX
            (SpotReply { read: Some(read), length, ..SpotReply::default() }, data)
        }
        Err(err) => {
            let (code, detail) = (err.code() as u32, err.detail().to_owned());
            (SpotReply { code, detail, ..SpotReply::default() }, Bytes::new())
        }
    };
    let head = framed(&reply);
    // One call for both, as long as the socket takes them.
    let sent = loop {
        match to.write_vectored(&[IoSlice::new(&head), IoSlice::new(&data)]) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    to.write_all(&head[sent.min(head.len())..])?;
    to.write_all(&data[sent.saturating_sub(head.len())..])
}

/// The answer to the request that was sent. The outer error ends the connection.
pub fn receive_reply(from: &mut impl Read) -> io::Result<FsResult<ReadReply>> {
    let mut first = [0; FIRST];
    let mut got = 0;
    while got < 4 {
        got += read_some(from, &mut first[got..])?;
    }
    let length = u32::from_be_bytes([first[0], first[1], first[2], first[3]]) as usize;
    if length > MESSAGE_MAX {
        return Err(invalid("no answer to a spot read"));
    }
    let mut rest = &first[4..got];
    let long: Vec<u8>;
    let reply = if let Some((head, data)) = rest.split_at_checked(length) {
        rest = data;
        SpotReply::decode(head)
    } else {
        long = exactly(from, rest, length)?;
        rest = &[];
        SpotReply::decode(long.as_slice())
    };
    let reply = reply.map_err(io::Error::other)?;
    let length = reply.length as usize;
    if length > DATA_MAX || rest.len() > length {
        return Err(invalid("more than the answer to a spot read"));
    }
    let data = exactly(from, rest, length)?;
    Ok(match ErrorCode::from_wire(reply.code) {
        Some(code) => Err(FsError::with(code, reply.detail)),
        None if reply.code != 0 => Err(ErrorCode::Protocol.into()),
        None => {
            let missing = || FsError::with(ErrorCode::Protocol, "an answer without a read");
            reply.read.ok_or_else(missing).map(|read| ReadReply { data: data.into(), ..read })
        }
    })
}

/// A message behind its length.
fn framed(message: &impl Message) -> Vec<u8> {
    let length = message.encoded_len();
    let mut frame = Vec::with_capacity(4 + length);
    frame.extend_from_slice(&(length as u32).to_be_bytes());
    // Cannot fail: a Vec has room for everything.
    let _ = message.encode(&mut frame);
    frame
}

fn read_some(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// `length` bytes, of which the first have come already.
fn exactly(from: &mut impl Read, come: &[u8], length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    bytes[..come.len()].copy_from_slice(come);
    from.read_exact(&mut bytes[come.len()..])?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use ozone_types::BlockId;

    use super::*;

    /// A connection that carries a few bytes at a time.
    struct Slow {
        bytes: VecDeque<u8>,
        at_once: usize,
    }

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.at_once.min(buffer.len());
            self.bytes.read(&mut buffer[..n])
        }
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = self.at_once.min(bytes.len());
            self.bytes.write(&bytes[..n])
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn request() -> ReadRequest {
        let block = Some(BlockId::default().into());
        ReadRequest { block, offset: 7, length: 4096, token: vec![9; 62].into() }
    }

    fn reply(bytes: usize, pieces: usize) -> ReadReply {
        let data = (0..bytes).map(|n| n as u8).collect::<Vec<_>>().into();
        ReadReply { offset: 3, data, lengths: vec![5; pieces], crcs: vec![6; pieces] }
    }

    #[test]
    fn what_is_sent_arrives_in_whatever_parts() {
        for at_once in [1, 3, 100, 5000, usize::MAX] {
            let mut line = Slow { bytes: VecDeque::new(), at_once };
            send_request(&mut line, &request()).unwrap();
            assert_eq!(receive_request(&mut line).unwrap(), Some(request()));
            assert_eq!(receive_request(&mut line).unwrap(), None, "closed");
            for (bytes, pieces) in [(0, 0), (10, 1), (32 << 10, 2), (900, 5000), (DATA_MAX, 300)] {
                send_reply(&mut line, Ok(reply(bytes, pieces))).unwrap();
                let answer = receive_reply(&mut line).unwrap().unwrap();
                assert!(answer == reply(bytes, pieces), "{bytes} bytes, {pieces} pieces");
            }
            send_reply(&mut line, Err(FsError::with(ErrorCode::BadToken, "why"))).unwrap();
            let refused = receive_reply(&mut line).unwrap().unwrap_err();
            assert_eq!((refused.code(), refused.detail()), (ErrorCode::BadToken, "why"));
            assert!(line.bytes.is_empty());
        }
    }

    #[test]
    fn a_cut_or_another_answer_is_an_error() {
        let mut whole = Vec::new();
        send_reply(&mut whole, Ok(reply(20, 2))).unwrap();
        for cut in 0..whole.len() {
            assert!(receive_reply(&mut &whole[..cut]).is_err(), "cut at {cut}");
        }
        let mut asked = Vec::new();
        send_request(&mut asked, &request()).unwrap();
        for cut in 1..asked.len() {
            assert!(receive_request(&mut &asked[..cut]).is_err(), "cut at {cut}");
        }
        let long = [u32::MAX.to_be_bytes().as_slice(), &[0; 100]].concat();
        assert!(receive_reply(&mut long.as_slice()).is_err());
        assert!(receive_request(&mut long.as_slice()).is_err());
        asked.push(0);
        assert!(receive_request(&mut asked.as_slice()).is_err(), "two at a time");
        whole.push(0);
        assert!(receive_reply(&mut whole.as_slice()).is_err(), "more than it says");
        let huge = SpotReply { length: u32::MAX, ..SpotReply::default() };
        assert!(receive_reply(&mut framed(&huge).as_slice()).is_err());
        let unknown = SpotReply { code: 60_000, ..SpotReply::default() };
        let refused = receive_reply(&mut framed(&unknown).as_slice()).unwrap().unwrap_err();
        assert_eq!(refused.code(), ErrorCode::Protocol);
    }
}
