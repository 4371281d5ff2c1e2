// What is shown: a mesh's corners, or the voxels within the clip box and the threshold.
function wavemeshShown(view) {
  const { meta, state, mesh, points, dims, center, radius } = view;
  function corners(f, q) { // of all triangles, with the normals of their vertices
    const n = f.faces.length, p = new Float32Array(3 * n), normal = new Float32Array(3 * f.vertices[0].length), value = new Uint16Array(n);
    const at = (v, i) => meta.low[i] + f.vertices[i][v] / 65534 * dims[i];
    const cornerNormals = new Float32Array(3 * n);
    for (let t = 0; t < n; t += 3) {
      const v = [f.faces[t], f.faces[t + 1], f.faces[t + 2]], P = v.map(v => [0, 1, 2].map(i => at(v, i)));
      const a = P[1].map((x, i) => x - P[0][i]), b = P[2].map((x, i) => x - P[0][i]);
      const cross = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
      for (let k = 0; k < 3; k++) for (let i = 0; i < 3; i++) { p[3 * (t + k) + i] = P[k][i]; normal[3 * v[k] + i] += cross[i]; }
    }
    for (let t = 0; t < n; t++) {
      for (let i = 0; i < 3; i++) cornerNormals[3 * t + i] = normal[3 * f.faces[t] + i];
      value[t] = q ? q[f.faces[t]] : 0;
    }
    return { n, p, normals: cornerNormals, value, order: Uint32Array.from({ length: n }, (_, i) => i) };
  }
  function keptVoxels(f, c, q) {
    const s = f.sites, [[x0, x1], [y0, y1], [z0, z1]] = state.clip, ids = new Uint32Array(f.n);
    const [lo, hi] = state.threshold, all = !c || lo === -Infinity && hi === Infinity;
    let n = 0;
    for (let i = 0; i < f.n; i++) {
      const x = s[3 * i], y = s[3 * i + 1], z = s[3 * i + 2];
      if (x < x0 || x >= x1 || y < y0 || y >= y1 || z < z0 || z >= z1) continue;
      if (!all) { const v = view.valueOf(c, q[i]); if (!(v >= lo && v <= hi)) continue; }
      ids[n++] = i;
    }
    return { kept: n, ids: ids.subarray(0, n), levels: [] };
  }
  function rebuild() {
    const f = view.frames[state.frame], c = view.channelOf(f), q = f.planes[state.channel], { gl, visible } = view;
    if (mesh) view.visible = corners(f, q);
    else if (points) view.visible = { n: f.n };
    else {
      for (const level of visible ? visible.levels : []) if (gl && level) gl.deleteTexture(level.texture);
      view.visible = keptVoxels(f, c, q);
    }
    view.dirty = true;
    view.stale = false;
    status();
  }
  function status() {
    const { visible } = view;
    if (mesh) view.say(`${(visible.n / 3).toLocaleString('en')} faces`);
    else if (points) view.say(`${visible.n.toLocaleString('en')} points${meta.thinned}`);
    else view.say(`${visible.kept.toLocaleString('en')} of ${view.frames[state.frame].n.toLocaleString('en')} voxels shown`);
  }
  function surface(k) { // the outer faces of blocks of (2ᵏ)³ voxels
    const { levels } = view.visible;
    return levels[k] || (levels[k] = wavemeshSurface(meta.shape, view.frames[state.frame].sites, view.visible, state.size >= 1, k));
  }
  function pack(level, order) {
    const f = view.frames[state.frame];
    wavemeshFaces(level, f.sites, f.planes[state.channel], order);
  }
  const farToNear = (cam, n, at) => wavemeshFarToNear(cam.rows[2], center, radius, n, at);
  function sortTranslucent(cam, level) {
    if (mesh) {
      const { visible } = view, p = visible.p, middle = k => [0, 1, 2].map(i => (p[9 * k + i] + p[9 * k + 3 + i] + p[9 * k + 6 + i]) / 3);
      farToNear(cam, visible.n / 3, middle).forEach((face, k) => { for (let i = 0; i < 3; i++) visible.order[3 * k + i] = 3 * face + i; });
      visible.uploaded = false;
    } else {
      const s = view.frames[state.frame].sites, { ids } = level, p = [0, 0, 0];
      pack(level, farToNear(cam, ids.length, j => { for (let i = 0; i < 3; i++) p[i] = s[3 * ids[j] + i] + .5; return p; }));
    }
  }
  return { rebuild, surface, pack, sortTranslucent };
}
