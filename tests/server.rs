//! The example `server` with many requests at once, bad uploads, a time limit, and a stop signal; and the example `compress`.
#![cfg(unix)]

mod example;
mod folder;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use wavemesh::mesh::{Mesh, MeshFormat};
use wavemesh::sdf::{SdfGrid, shapes};
use wavemesh::wavelet::SparseWavelet;

use example::example;
use folder::Folder;

struct Service {
    process: Child,
    address: String,
    output: BufReader<std::process::ChildStdout>,
}

impl Service {
    fn start() -> Self {
        let mut process = Command::new(example("server")).arg("127.0.0.1:0").stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { process, address, output }
    }

    /// The status and the body of the answer.
    fn post(&self, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        self.post_some(path, body, body.len())
    }

    /// Like [`post`](Self::post), but sends only the start of a body with a declared length of `length` bytes.
    fn post_some(&self, path: &str, body: &[u8], length: usize) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        // The service may answer and close the connection before it has read all of a refused upload.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let split = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer with a head");
        let head = String::from_utf8_lossy(&answer[..split]).into_owned();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer[split + 4..].to_vec();
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        (status, if chunked { joined(&body) } else { body })
    }
}

/// The content of a chunked body.
fn joined(mut body: &[u8]) -> Vec<u8> {
    let mut found = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if length == 0 {
            break;
        }
        found.extend_from_slice(&body[end + 2..][..length]);
        body = &body[end + 2 + length + 2..];
    }
    found
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn obj(mesh: &Mesh) -> Vec<u8> {
    mesh.to_bytes(MeshFormat::Obj).unwrap()
}

#[test]
fn a_service_answers_many_at_once_refuses_what_is_wrong_and_stops_cleanly() {
    let service = Service::start();
    let upload = obj(&shapes::torus(0.6, 0.25).to_mesh(24).unwrap());
    let asked = "/compress?format=obj&resolution=32&max_error=0.01";

    // Many requests at once: each gets the same bytes.
    let answers: Vec<_> = std::thread::scope(|scope| {
        let ask = || scope.spawn(|| service.post(asked, &upload));
        let waiting: Vec<_> = (0..12).map(|_| ask()).collect();
        waiting.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|(status, body)| *status == 200 && *body == answers[0].1));
    let decoded = SparseWavelet::decompress(&answers[0].1).unwrap().decode().unwrap();
    let own = SdfGrid::from_mesh(&Mesh::from_bytes(&upload, MeshFormat::Obj).unwrap(), 32).unwrap();
    let error = own.values().iter().zip(decoded.values()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(error <= 0.0101, "{error}");

    // And back to a mesh.
    let (status, ply) = service.post("/mesh", &answers[0].1);
    assert!(status == 200 && Mesh::from_bytes(&ply, MeshFormat::Ply).unwrap().is_watertight());

    // Bad requests are refused with a reason, and no other request notices.
    for (path, body, status, reason) in [
        (asked, &b"not a mesh"[..], 400, "OBJ"),
        ("/compress?format=step", &upload[..], 400, "step"),
        ("/compress?resolution=many", &upload[..], 400, "resolution"),
        ("/compress?resolution=100000", &upload[..], 400, "at most 256"),
        ("/compress?max_error=0", &upload[..], 400, "max_error"),
        ("/mesh", &b"WMZ1 and then nothing"[..], 400, "bytes"),
        ("/elsewhere", &b""[..], 404, "/compress"),
    ] {
        let (found, text) = service.post(path, body);
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(found == status && text.contains(reason), "{path}: {found} {text}");
    }
    let (status, _) = service.post(asked, &vec![b'#'; (32 << 20) + 1]);
    assert_eq!(status, 413);

    // An upload that does not end is abandoned.
    let (status, _) = service.post_some("/mesh?upload_ms=50", b"WMZ1", 5);
    assert_eq!(status, 408);

    // A time limit of zero stops this request alone.
    assert_eq!(service.post(&format!("{asked}&timeout_ms=0"), &upload).0, 503);
    assert_eq!(service.post(asked, &upload).1, answers[0].1);

    let mut service = service;
    let pid = service.process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(service.process.wait().unwrap().success());
    let mut rest = String::new();
    service.output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest.trim(), "stopped");
}

#[test]
fn a_mesh_goes_through_a_small_file_and_comes_back() {
    let folder = Folder::new("compress-test");
    let [mesh, file, back] = ["in.obj", "out.wmz", "back.ply"].map(|name| folder.join(name));
    shapes::cuboid([0.5, 0.3, 0.4]).to_mesh(24).unwrap().save(&mesh).unwrap();
    let run = |arguments: &[&std::ffi::OsStr]| Command::new(example("compress")).args(arguments).output().unwrap();
    let encode = run(&["encode".as_ref(), mesh.as_ref(), file.as_ref(), "--resolution".as_ref(), "32".as_ref()]);
    assert!(encode.status.success(), "{}", String::from_utf8_lossy(&encode.stderr));
    assert!(run(&["decode".as_ref(), file.as_ref(), back.as_ref()]).status.success());
    assert!(Mesh::load(&back).unwrap().is_watertight());
    let missing = run(&["decode".as_ref(), "no/such.wmz".as_ref(), back.as_ref()]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("no/such.wmz"));
    assert_eq!(run(&["squeeze".as_ref()]).status.code(), Some(2));
}

#[test]
fn many_triangles_and_many_points_take_bounded_memory() {
    let output = Command::new(example("compress")).args(["large", "30000", "40000"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Vec<&str>> = text.lines().skip(2).map(|line| line.split('|').map(str::trim).collect()).collect();
    assert_eq!(rows.len(), 6, "{text}");
    let chamfer: f64 = rows[4][2].split(' ').nth(1).unwrap().parse().unwrap();
    assert!(chamfer > 0.0 && chamfer < 0.005, "{text}"); // the grid's cells are 0.013 wide
    if let Some(memory) = rows[5][4].strip_suffix(" GB") {
        assert!(memory.parse::<f64>().unwrap() < 1.0, "{text}"); // the grid takes 0.008
    }
}
