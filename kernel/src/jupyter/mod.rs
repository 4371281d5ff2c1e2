//! The Jupyter side of the kernel: five sockets, the messages on them, and who answers which.
//!
//! | channel | served by | for |
//! | --- | --- | --- |
//! | shell | [`shell`], cells by [`execute`] | requests; all but cells are answered while a cell runs |
//! | control | [`control`] | interrupt, shutdown |
//! | iopub | [`iopub`], fed by [`output`] and [`activity`] | what everybody sees |
//! | stdin | [`stdin`] | questions of a cell |
//! | heartbeat | [`zmtp`] alone | are you there? |
//!
//! Messages are those of [Jupyter messaging 5.4](https://jupyter-client.readthedocs.io/en/stable/messaging.html). The
//! evaluator is behind [`EngineHandle`](crate::engine::EngineHandle) and knows nothing of them.

mod activity;
mod channel;
mod comms;
mod connection;
mod control;
mod execute;
mod history;
mod info;
mod iopub;
mod outbox;
mod output;
mod shell;
mod stdin;
mod wire;
mod zmtp;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use self::activity::Activity;
use self::channel::Channel;
use self::comms::Comms;
use self::connection::ConnectionInfo;
use self::control::Control;
use self::execute::Executor;
use self::history::History;
use self::iopub::Iopub;
use self::output::Outlets;
use self::shell::Shell;
use self::stdin::Stdin;
use self::wire::Signer;
use self::zmtp::{Event, Role, Socket};
use crate::engine::EngineHandle;

/// How long the evaluator may take to end.
const ENGINE_END: Duration = Duration::from_secs(5);
/// How long frontends may take to receive the last messages.
const FAREWELL: Duration = Duration::from_secs(1);

/// Writes a line to the log, which is standard error. Never anything secret.
macro_rules! log {
    ($($message:tt)*) => {{
        use std::io::Write as _;
        // A frontend may have closed the log; that is no reason to stop.
        let _ = writeln!(std::io::stderr(), "[wavemesh-kernel] {}", format_args!($($message)*));
    }};
}
use log;

/// Serves the connection described in a file, until a frontend or a signal ends the kernel.
pub fn run(connection_file: &Path) -> Result<()> {
    let info = connection::read(connection_file)?;
    // This must come before any thread starts.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .context("cannot start the threads of the kernel")?;
    let ended = runtime.block_on(serve(info));
    // Cells that do not end must not keep the process alive.
    runtime.shutdown_background();
    ended
}

async fn serve(info: ConnectionInfo) -> Result<()> {
    let signer = Arc::new(Signer::new(&info.key));
    let (shell_socket, shell_events) = bind(Role::Router, &info, info.shell_port, "shell").await?;
    let (control_socket, control_events) = bind(Role::Router, &info, info.control_port, "control").await?;
    let (stdin_socket, stdin_events) = bind(Role::Router, &info, info.stdin_port, "stdin").await?;
    let (iopub_socket, iopub_events) = bind(Role::XPub, &info, info.iopub_port, "iopub").await?;
    let (heartbeat_socket, _) = bind(Role::Echo, &info, info.hb_port, "heartbeat").await?;

    let engine = EngineHandle::start();
    let iopub = Iopub::start(iopub_socket.clone(), iopub_events, signer.clone());
    let activity = Activity::new(iopub.clone());
    let shell_channel = Channel::new("shell", shell_socket.clone(), signer.clone());
    let control_channel = Channel::new("control", control_socket.clone(), signer.clone());
    let stdin = Stdin::start(Channel::new("stdin", stdin_socket.clone(), signer), stdin_events);
    let comms = Comms::default();
    let history = Arc::new(Mutex::new(History::open()));
    let (ending, mut ended) = watch::channel(false);
    let control = Control {
        activity: activity.clone(),
        iopub: iopub.clone(),
        engine: engine.clone(),
        stdin: stdin.clone(),
        ending,
    };

    let (cells, queue) = mpsc::unbounded_channel();
    let executor = Executor {
        engine: engine.clone(),
        activity: activity.clone(),
        outlets: Outlets { iopub: iopub.clone(), stdin, comms: comms.clone() },
        shell: shell_channel.clone(),
        history: history.clone(),
    };
    tokio::spawn(executor.run(queue));
    let shell = Shell {
        channel: shell_channel,
        activity,
        iopub: iopub.clone(),
        engine: engine.clone(),
        comms,
        history,
        cells,
        control: control.clone(),
        connection: Arc::new(info),
    };
    tokio::spawn(shell.run(shell_events));
    tokio::spawn(control.clone().run(control_channel, control_events));
    tokio::spawn(watch_signals(control.clone()));
    tokio::spawn(watch_parent(control));

    let _ = ended.wait_for(|ended| *ended).await;
    let stopping = tokio::task::spawn_blocking(move || engine.shutdown());
    if tokio::time::timeout(ENGINE_END, stopping).await.is_err() {
        log!("the evaluator did not end in {} s", ENGINE_END.as_secs());
    }
    let _ = tokio::time::timeout(FAREWELL, iopub.settled()).await;
    for socket in [shell_socket, control_socket, stdin_socket, iopub_socket, heartbeat_socket] {
        socket.drain(FAREWELL).await;
        socket.unlink();
    }
    Ok(())
}

async fn bind(role: Role, info: &ConnectionInfo, port: u16, name: &str) -> Result<(Socket, mpsc::Receiver<Event>)> {
    let endpoint = connection::endpoint(info, port);
    Socket::bind(role, &endpoint).await.with_context(|| {
        format!("cannot listen on {endpoint:?} for the {name} channel; is another kernel using this connection file?")
    })
}

/// Signals that frontends without interrupt messages, terminals and service managers send.
async fn watch_signals(control: Control) {
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        return log!("signals cannot be received; the kernel ends with shutdown messages only");
    };
    loop {
        tokio::select! {
            _ = interrupt.recv() => control.interrupt(),
            _ = terminate.recv() => break,
            _ = hangup.recv() => break,
        }
    }
    control.ending.send_replace(true);
}

/// A frontend that starts a kernel for itself says so with `JPY_PARENT_PID`; the kernel ends with it.
async fn watch_parent(control: Control) {
    if std::env::var_os("JPY_PARENT_PID").is_none() {
        return;
    }
    let parent = std::os::unix::process::parent_id();
    while std::os::unix::process::parent_id() == parent {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    log!("the frontend that started this kernel has gone");
    control.ending.send_replace(true);
}
