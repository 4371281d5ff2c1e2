//! The file descriptors of the pipes, made once for all children of a kernel.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::fcntl_dupfd_cloexec;

/// The descriptors for the child start here, above those that the child itself uses.
const HIGH: i32 = 200;
/// The size of a pipe in bytes: a cell that prints a burst need not wait for the frontend.
const BURST: usize = 1 << 20;

/// The ends of the pipes that a child inherits.
pub struct ChildEnds {
    pub out: OwnedFd,
    pub err: OwnedFd,
    pub input: OwnedFd,
    pub control: OwnedFd,
    pub comms: OwnedFd,
}

/// All ends.
pub struct Ends {
    pub child: ChildEnds,
    pub out: OwnedFd,
    pub err: OwnedFd,
    pub input: OwnedFd,
    pub control: OwnedFd,
    /// A second descriptor for the kernel's end of the control socket, for the reading thread.
    pub control_reader: OwnedFd,
    pub comms: OwnedFd,
    pub wake: OwnedFd,
    pub wake_reader: OwnedFd,
}

impl Ends {
    pub fn new() -> std::io::Result<Ends> {
        let (out, child_out) = pipe()?;
        let (err, child_err) = pipe()?;
        let (child_input, input) = pipe()?;
        let (wake_reader, wake) = pipe()?;
        let (child_comms, comms) = pipe()?;
        let (control, child_control) = UnixStream::pair()?;
        for end in [&out, &err, &wake_reader, &comms] {
            rustix::io::ioctl_fionbio(end, true)?;
        }
        // A smaller pipe serves as well.
        let _ = rustix::pipe::fcntl_setpipe_size(&child_out, BURST);
        Ok(Ends {
            child: ChildEnds {
                out: high(child_out)?,
                err: high(child_err)?,
                input: high(child_input)?,
                control: high(child_control)?,
                comms: high(child_comms)?,
            },
            out,
            err,
            input,
            control_reader: control.try_clone()?.into(),
            control: control.into(),
            comms,
            wake,
            wake_reader,
        })
    }
}

/// A pipe: its end for reading, and its end for writing.
fn pipe() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = std::io::pipe()?;
    Ok((reader.into(), writer.into()))
}

/// Moves a descriptor above those that the child itself uses.
fn high(end: impl AsFd) -> std::io::Result<OwnedFd> {
    Ok(fcntl_dupfd_cloexec(end, HIGH)?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn what_goes_in_at_one_end_comes_out_at_the_other() -> std::io::Result<()> {
        let Ends { child, out, err, input, control, comms, .. } = Ends::new()?;
        for (writer, reader) in [
            (child.out, out),
            (child.err, err),
            (input, child.input),
            (comms, child.comms),
            (child.control.try_clone()?, control.try_clone()?),
            (control, child.control),
        ] {
            File::from(writer).write_all(b"x")?;
            let mut byte = [0];
            File::from(reader).read_exact(&mut byte)?;
            assert_eq!(&byte, b"x");
        }
        Ok(())
    }

    #[test]
    fn a_child_has_descriptors_below_its_own_for_itself() -> std::io::Result<()> {
        let ChildEnds { out, err, input, control, comms } = Ends::new()?.child;
        assert!([out, err, input, control, comms].iter().all(|end| end.as_raw_fd() >= HIGH));
        Ok(())
    }
}
