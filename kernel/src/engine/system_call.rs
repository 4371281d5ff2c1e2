//! Reads from a thread's registers which system call a signal interrupted.

use std::ffi::{c_int, c_long};

use libc::ucontext_t;
use wavemesh_cell::wait::{Answer, System};

/// The machine instruction for a system call.
const CALL: &[u8] = if cfg!(target_arch = "x86_64") { &[0x0f, 0x05] } else { &[0x01, 0x00, 0x00, 0xd4] };

/// Calls that wait for something to arrive.
const INCOMING: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_openat,
    libc::SYS_flock,
    libc::SYS_fcntl,
    libc::SYS_wait4,
    libc::SYS_waitid,
];
const OUTGOING: &[c_long] =
    &[libc::SYS_write, libc::SYS_writev, libc::SYS_pwrite64, libc::SYS_sendto, libc::SYS_sendmsg, libc::SYS_sendmmsg];

/// Where a thread is relative to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemCall {
    /// Before it: the call is made, or repeated, when the handler returns.
    Due,
    /// After it.
    Over,
}

impl SystemCall {
    /// The call at, or just before, an address in code of the C library.
    pub fn at(at: usize) -> Option<SystemCall> {
        let is_at = |at: usize| {
            // SAFETY: the caller guarantees that this is code of the C library, which can be read; no call lies at its very edge.
            let code = unsafe { std::slice::from_raw_parts(at as *const u8, CALL.len()) };
            code == CALL
        };
        if is_at(at) {
            Some(SystemCall::Due)
        } else if is_at(at - CALL.len()) {
            Some(SystemCall::Over)
        } else {
            None
        }
    }

    /// The kind of the call.
    pub fn kind(self, context: &ucontext_t) -> System {
        match self {
            SystemCall::Due => match number(context) {
                libc::SYS_futex => System::Futex,
                call if INCOMING.contains(&call) => System::Incoming,
                call if OUTGOING.contains(&call) => System::Outgoing,
                _ => System::Other,
            },
            SystemCall::Over if result(context) == -c_long::from(libc::EINTR) => System::Interrupted,
            SystemCall::Over if has_printed(context) => System::Outgoing,
            SystemCall::Over => System::Other,
        }
    }

    /// Ends the call with the result for this answer. A call that ended by itself stays as it is, unless it was interrupted or has printed:
    /// a loop of short prints is hardly ever met anywhere else.
    pub fn answer(self, context: &mut ucontext_t, answer: Answer) {
        let failed = |error: c_int| -c_long::from(error);
        let value = match answer {
            Answer::GoOn => return,
            Answer::Wake => 0,
            Answer::TimeOut => failed(libc::ETIMEDOUT),
            Answer::Cancel => failed(libc::ECANCELED),
        };
        match self {
            SystemCall::Due => skip_call(context),
            SystemCall::Over if result(context) == failed(libc::EINTR) || has_printed(context) => {}
            SystemCall::Over => return,
        }
        set_result(context, value);
    }
}

/// Whether the call has ended and wrote to standard output or error.
fn has_printed(context: &ucontext_t) -> bool {
    /// The C library's `write` function has at most this many bytes.
    const LENGTH: usize = 192;
    let write = libc::write as *const () as usize;
    (write..write + LENGTH).contains(&program_counter(context))
        && result(context) > 0
        && [rustix::stdio::raw_stdout(), rustix::stdio::raw_stderr()]
            .map(c_long::from)
            .contains(&first_argument(context))
}

#[cfg(target_arch = "x86_64")]
mod registers {
    use super::*;

    pub fn program_counter(context: &ucontext_t) -> usize {
        context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize
    }

    pub fn number(context: &ucontext_t) -> c_long {
        context.uc_mcontext.gregs[libc::REG_RAX as usize]
    }

    pub fn result(context: &ucontext_t) -> c_long {
        context.uc_mcontext.gregs[libc::REG_RAX as usize]
    }

    /// The system leaves this register unchanged.
    pub fn first_argument(context: &ucontext_t) -> c_long {
        context.uc_mcontext.gregs[libc::REG_RDI as usize]
    }

    pub fn set_result(context: &mut ucontext_t, value: c_long) {
        context.uc_mcontext.gregs[libc::REG_RAX as usize] = value;
    }

    pub fn skip_call(context: &mut ucontext_t) {
        context.uc_mcontext.gregs[libc::REG_RIP as usize] += CALL.len() as i64;
    }
}

#[cfg(target_arch = "aarch64")]
mod registers {
    use super::*;

    pub fn program_counter(context: &ucontext_t) -> usize {
        context.uc_mcontext.pc as usize
    }

    pub fn number(context: &ucontext_t) -> c_long {
        context.uc_mcontext.regs[8] as c_long
    }

    pub fn result(context: &ucontext_t) -> c_long {
        context.uc_mcontext.regs[0] as c_long
    }

    /// The result has replaced the argument.
    pub fn first_argument(_: &ucontext_t) -> c_long {
        -1
    }

    pub fn set_result(context: &mut ucontext_t, value: c_long) {
        context.uc_mcontext.regs[0] = value as u64;
    }

    pub fn skip_call(context: &mut ucontext_t) {
        context.uc_mcontext.pc += CALL.len() as u64;
    }
}

pub use registers::program_counter;
use registers::{first_argument, number, result, set_result, skip_call};

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    fn context(number: c_long) -> ucontext_t {
        // SAFETY: a context of zeros is valid.
        let mut context: ucontext_t = unsafe { std::mem::zeroed() };
        set_result(&mut context, number);
        context
    }

    #[test]
    fn a_call_that_is_due_is_skipped_and_has_the_result() {
        let mut context = context(libc::SYS_read);
        assert_eq!(SystemCall::Due.kind(&context), System::Incoming);
        SystemCall::Due.answer(&mut context, Answer::GoOn);
        assert_eq!((program_counter(&context), number(&context)), (0, libc::SYS_read));
        SystemCall::Due.answer(&mut context, Answer::Cancel);
        assert_eq!((program_counter(&context), result(&context)), (CALL.len(), -c_long::from(libc::ECANCELED)));
    }

    #[test]
    fn what_a_call_has_done_is_not_undone() {
        let mut context = context(100);
        assert_eq!(SystemCall::Over.kind(&context), System::Other);
        SystemCall::Over.answer(&mut context, Answer::Cancel);
        assert_eq!(result(&context), 100, "so many bytes were read");
        set_result(&mut context, -c_long::from(libc::EINTR));
        assert_eq!(SystemCall::Over.kind(&context), System::Interrupted);
        SystemCall::Over.answer(&mut context, Answer::Cancel);
        assert_eq!((program_counter(&context), result(&context)), (0, -c_long::from(libc::ECANCELED)));
    }

    #[test]
    fn a_print_that_was_made_may_fail_and_any_other_write_may_not() {
        let mut printed = context(6);
        printed.uc_mcontext.gregs[libc::REG_RIP as usize] = libc::write as *const () as i64 + 20;
        for (file, kind, left) in [(1, System::Outgoing, -c_long::from(libc::ECANCELED)), (7, System::Other, 6)] {
            printed.uc_mcontext.gregs[libc::REG_RDI as usize] = file;
            set_result(&mut printed, 6);
            assert_eq!(SystemCall::Over.kind(&printed), kind, "{file}");
            SystemCall::Over.answer(&mut printed, Answer::Cancel);
            assert_eq!(result(&printed), left, "{file}");
        }
    }

    #[test]
    fn a_call_is_found_at_its_instruction_and_behind_it() {
        let code = [0x90u8, 0x90, 0x0f, 0x05, 0x90, 0x90];
        let at = |index: usize| SystemCall::at(code.as_ptr() as usize + index);
        assert_eq!([at(2), at(4), at(3)], [Some(SystemCall::Due), Some(SystemCall::Over), None]);
    }
}
