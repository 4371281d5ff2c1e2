//! How a connection begins: greetings, the NULL mechanism, and the READY commands in which peers introduce themselves.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Role;
use super::framing::{COMMAND, Received, read_message, violation};

/// Exchanges greetings and READY commands; returns the peer's identity, often empty.
pub async fn handshake<R, W>(role: Role, reader: &mut R, writer: &mut W) -> io::Result<Bytes>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut greeting = [0u8; 64];
    greeting[0] = 0xff;
    greeting[9] = 0x7f;
    greeting[10] = 3;
    greeting[12..16].copy_from_slice(b"NULL");
    writer.write_all(&greeting).await?;
    writer.flush().await?;

    let mut theirs = [0u8; 64];
    reader.read_exact(&mut theirs).await?;
    if theirs[0] != 0xff || theirs[9] & 1 != 1 || theirs[10] < 3 {
        return Err(violation("the peer does not speak ZMTP 3"));
    }
    if theirs[12..32] != greeting[12..32] {
        return Err(violation("the peer asks for a security mechanism other than NULL"));
    }

    let mut ready = b"\x05READY".to_vec();
    for (name, value) in [("Socket-Type", role.name()), ("Identity", "")] {
        ready.push(name.len() as u8);
        ready.extend_from_slice(name.as_bytes());
        ready.extend_from_slice(&(value.len() as u32).to_be_bytes());
        ready.extend_from_slice(value.as_bytes());
    }
    writer.write_all(&[&[COMMAND, ready.len() as u8][..], &ready[..]].concat()).await?;
    writer.flush().await?;

    let Received::Command(body) = read_message(reader, 4096).await? else {
        return Err(violation("the peer sent a message before READY"));
    };
    let properties = body.strip_prefix(b"\x05READY").ok_or_else(|| violation("the peer did not send READY"))?;
    let properties = parse_properties(properties).ok_or_else(|| violation("the properties of READY are cut short"))?;
    let find = |name: &str| {
        properties
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()))
            .map_or(&b""[..], |(_, value)| value)
    };
    if !role.accepts(find("Socket-Type")) {
        return Err(violation("the peer's type of socket does not fit"));
    }
    let identity = find("Identity");
    if identity.len() > 255 || identity.first() == Some(&0) {
        return Err(violation("the peer's identity is not a valid one"));
    }
    Ok(Bytes::copy_from_slice(identity))
}

fn parse_properties(mut rest: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut properties = Vec::new();
    while let Some((&length, tail)) = rest.split_first() {
        let (name, tail) = tail.split_at_checked(length as usize)?;
        let (length, tail) = tail.split_first_chunk::<4>()?;
        let (value, tail) = tail.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        properties.push((name, value));
        rest = tail;
    }
    Some(properties)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How the kernel's side answers a peer that sends `theirs`, and what it sends itself.
    async fn met(role: Role, theirs: &[u8]) -> (io::Result<Bytes>, Vec<u8>) {
        let mut ours = Vec::new();
        let result = handshake(role, &mut &theirs[..], &mut ours).await;
        (result, ours)
    }

    fn greeting() -> Vec<u8> {
        let mut greeting = vec![0u8; 64];
        (greeting[0], greeting[9], greeting[10]) = (0xff, 0x7f, 3);
        greeting[12..16].copy_from_slice(b"NULL");
        greeting
    }

    fn ready(properties: &[(&str, &[u8])]) -> Vec<u8> {
        let mut body = b"\x05READY".to_vec();
        for (name, value) in properties {
            body.push(name.len() as u8);
            body.extend_from_slice(name.as_bytes());
            body.extend_from_slice(&(value.len() as u32).to_be_bytes());
            body.extend_from_slice(value);
        }
        [&[COMMAND, body.len() as u8][..], &body].concat()
    }

    #[tokio::test]
    async fn a_peer_introduces_itself_and_is_answered() {
        let peer = [greeting(), ready(&[("socket-type", b"DEALER"), ("Identity", b"me")])].concat();
        let (identity, ours) = met(Role::Router, &peer).await;
        assert_eq!(identity.unwrap(), &b"me"[..]);
        assert!(ours.starts_with(&greeting()) && ours[64..].starts_with(&[COMMAND]) && ours.ends_with(&[0; 4]));
        let unnamed = [greeting(), ready(&[("Socket-Type", b"SUB")])].concat();
        assert_eq!(met(Role::XPub, &unnamed).await.0.unwrap(), &b""[..]);
    }

    #[tokio::test]
    async fn a_peer_that_does_not_fit_is_refused_with_the_reason() {
        let other = |at: usize, byte: u8| {
            let mut greeting = greeting();
            greeting[at] = byte;
            greeting
        };
        let fits = ready(&[("Socket-Type", b"DEALER")]);
        let mut cut = ready(&[("Socket-Type", b"DEALER")]);
        cut.truncate(cut.len() - 2);
        cut[1] -= 2;
        for (peer, reason) in [
            ([other(10, 2), fits.clone()].concat(), "does not speak ZMTP 3"),
            ([other(12, b'C'), fits.clone()].concat(), "security mechanism"),
            ([greeting(), b"\x00\x01x".to_vec()].concat(), "before READY"),
            ([greeting(), ready(&[("Socket-Type", b"SUB")])].concat(), "does not fit"),
            ([greeting(), cut].concat(), "cut short"),
            ([greeting(), ready(&[("Socket-Type", b"DEALER"), ("Identity", b"\0x")])].concat(), "identity"),
        ] {
            let error = met(Role::Router, &peer).await.0.unwrap_err();
            assert!(error.to_string().contains(reason), "{error}, not {reason}");
        }
    }
}
