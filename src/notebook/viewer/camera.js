// The camera: from positions to the screen.
function wavemeshCamera(view) {
  const { meta, state, stage, center, radius } = view;
  function camera() {
    const a = state.az * Math.PI / 180, e = state.el * Math.PI / 180;
    const rows = [[-Math.sin(a), Math.cos(a), 0],
      [-Math.sin(e) * Math.cos(a), -Math.sin(e) * Math.sin(a), Math.cos(e)],
      [Math.cos(e) * Math.cos(a), Math.cos(e) * Math.sin(a), Math.sin(e)]].map(([x, y, z]) =>
      meta.up === 2 ? [x, y, z] : meta.up === 1 ? [x, z, -y] : [z, x, y]);
    const D = 4 * radius, H = radius * 1.08 / state.zoom, w = view.canvas.width, h = view.canvas.height;
    const aspect = w / h, half = aspect < 1 ? H / aspect : H;
    const near = D - 1.6 * radius, far = D + 1.6 * radius;
    const offset = rows.map(r => -(r[0] * center[0] + r[1] * center[1] + r[2] * center[2]));
    const row = (r, o, k, c) => [r[0] * k, r[1] * k, r[2] * k, o * k + c];
    const X = row(rows[0], offset[0], 1 / (half * aspect), state.pan[0]);
    const Y = row(rows[1], offset[1], 1 / half, state.pan[1]);
    let W, Z;
    if (state.ortho) {
      W = [0, 0, 0, 1];
      Z = row(rows[2], offset[2], -1 / (1.6 * radius), 0);
    } else {
      W = row(rows[2], offset[2], -1 / D, 1);
      const A = (far + near) / (far - near), B = 2 * far * near / (far - near) / D;
      Z = W.map((v, i) => A * v - (i === 3 ? B : 0));
      // The shift on the screen must be the same at every distance.
      for (const [r, pan] of [[X, state.pan[0]], [Y, state.pan[1]]]) for (let i = 0; i < 4; i++) r[i] += (i === 3 ? -pan : 0) + pan * W[i];
    }
    const reach = state.ortho ? 1e4 * radius : D;
    return { vp: [0, 1, 2, 3].flatMap(i => [X[i], Y[i], Z[i], W[i]]), rows, rot: [0, 1, 2].flatMap(i => rows.map(r => r[i])),
      eye: center.map((c, i) => c + rows[2][i] * reach) };
  }
  function project(cam, p) { // to CSS pixels
    const q = [0, 1, 2, 3].map(i => cam.vp[i] * p[0] + cam.vp[4 + i] * p[1] + cam.vp[8 + i] * p[2] + cam.vp[12 + i]);
    return [(q[0] / q[3] + 1) / 2 * stage.clientWidth, (1 - q[1] / q[3]) / 2 * stage.clientHeight];
  }
  return { camera, project };
}
