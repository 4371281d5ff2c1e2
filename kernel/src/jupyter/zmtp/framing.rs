//! Messages and commands as frames: flags, a length in one byte or eight, the body.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::jupyter::outbox::Outbox;

/// Frames of one message; Jupyter uses six and one for each buffer.
const MAX_FRAMES: usize = 4096;
/// Bytes handed to the operating system at a time, so that the progress of a slow reader can be seen.
const CHUNK: usize = 256 * 1024;

const MORE: u8 = 1;
const LONG: u8 = 2;
pub const COMMAND: u8 = 4;

pub fn violation(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What came from a peer.
pub enum Received {
    Message(Vec<Bytes>),
    Command(Vec<u8>),
}

/// Reads one message or command of at most `limit` bytes.
pub async fn read_message<R: AsyncRead + Unpin>(reader: &mut R, limit: usize) -> io::Result<Received> {
    let mut frames = Vec::new();
    let mut total = 0usize;
    loop {
        let flags = reader.read_u8().await?;
        if flags & !(MORE | LONG | COMMAND) != 0 {
            return Err(violation("a frame has unknown flags"));
        }
        let length = if flags & LONG != 0 { reader.read_u64().await? } else { u64::from(reader.read_u8().await?) };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        total = total.saturating_add(length);
        if total > limit || frames.len() == MAX_FRAMES {
            return Err(violation("a message is larger than this socket takes"));
        }
        // The vector grows with the bytes that arrive: until then the length is only a claim.
        let mut body = Vec::with_capacity(length.min(CHUNK));
        if (&mut *reader).take(length as u64).read_to_end(&mut body).await? != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if flags & COMMAND != 0 {
            return Ok(Received::Command(body));
        }
        frames.push(Bytes::from(body));
        if flags & MORE == 0 {
            return Ok(Received::Message(frames));
        }
    }
}

/// Writes the outbox to the peer until either ends.
pub async fn write_all<W: AsyncWrite + Unpin>(writer: W, outbox: &Outbox) -> io::Result<()> {
    let mut writer = tokio::io::BufWriter::with_capacity(64 * 1024, writer);
    loop {
        let message = match outbox.try_next() {
            Some(message) => message,
            None => {
                writer.flush().await?;
                outbox.flushed();
                match outbox.next().await {
                    Some(message) => message,
                    None => return writer.shutdown().await,
                }
            }
        };
        let last = message.len().saturating_sub(1);
        for (index, frame) in message.iter().enumerate() {
            let mut flags = if message.is_command() { COMMAND } else { 0 };
            if index < last {
                flags |= MORE;
            }
            match u8::try_from(frame.len()) {
                Ok(length) => writer.write_all(&[flags, length]).await?,
                Err(_) => {
                    writer.write_u8(flags | LONG).await?;
                    writer.write_u64(frame.len() as u64).await?;
                }
            }
            for chunk in frame.chunks(CHUNK) {
                writer.write_all(chunk).await?;
                outbox.progressed();
            }
        }
        outbox.written(message.size());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::jupyter::outbox::Frames;

    async fn read(bytes: &[u8], limit: usize) -> io::Result<Received> {
        read_message(&mut &bytes[..], limit).await
    }

    #[tokio::test]
    async fn what_is_written_is_read_again() {
        let outbox = Arc::new(Outbox::default());
        let frames: Vec<Bytes> = [0, 1, 255, 256, 600_000].map(|length| Bytes::from(vec![7u8; length])).to_vec();
        outbox.push(Frames::from(frames.clone()));
        outbox.push(Frames::command(b"\x04PONG".to_vec()));
        outbox.close();
        let mut wire = Vec::new();
        write_all(&mut wire, &outbox).await.unwrap();
        let mut wire = &wire[..];
        let message = read_message(&mut wire, 1 << 20).await.unwrap();
        assert!(matches!(message, Received::Message(read) if read == frames));
        let command = read_message(&mut wire, 1 << 20).await.unwrap();
        assert!(matches!(command, Received::Command(body) if body == b"\x04PONG"));
        assert!(wire.is_empty());
    }

    #[tokio::test]
    async fn an_announced_length_is_not_believed() {
        let huge = [&[LONG][..], &u64::MAX.to_be_bytes(), b"x"].concat();
        assert!(read(&huge, 1 << 20).await.is_err_and(|error| error.to_string().contains("larger")));
        let cut = [&[LONG][..], &1000u64.to_be_bytes(), b"x"].concat();
        assert!(read(&cut, 1 << 20).await.is_err_and(|error| error.kind() == io::ErrorKind::UnexpectedEof));
        let many = [MORE, 0].repeat(MAX_FRAMES + 1);
        assert!(read(&many, 1 << 20).await.is_err());
        assert!(read(&[8, 0], 16).await.is_err_and(|error| error.to_string().contains("flags")));
    }
}
