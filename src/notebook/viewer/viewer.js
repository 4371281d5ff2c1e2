// WaveMesh's interactive viewer, in plain WebGL2 without dependencies or network. Each viewer's HTML contains payload.js, shaders.js and
// surface.js, then this file.
// wavemeshViewer(root, meta, packed, ramps): `packed` is base64 of gzip of the binary described in payload.rs.
function wavemeshViewer(root, meta, packed, ramps) {
  if (root.wavemesh) return;
  const $ = (tag, css, parent, props) => {
    const e = document.createElement(tag);
    if (css) e.style.cssText = css;
    Object.assign(e, props || {});
    if (parent) parent.appendChild(e);
    return e;
  };
  // Where scripts do not run or are not trusted, the output is only its heading and the picture. The script creates the rest.
  const stage = root.querySelector('[data-stage]'), still = stage.querySelector('img'), mesh = meta.kind === 'mesh', points = meta.kind === 'points', voxels = !mesh && !points;
  stage.style.cssText = `position:relative;width:100%;aspect-ratio:${meta.width}/${meta.height};overflow:hidden;border-radius:4px`;
  still.style.cssText = 'position:absolute;width:100%';
  const details = $('details', 'margin-top:4px', root), summary = $('summary', 'cursor:pointer', details), note = $('span', '', summary);
  note.dataset.note = '';
  summary.append(' · drag turns, shift drag moves, wheel zooms after a click · controls');
  const row = parent => $('div', 'display:flex;flex-wrap:wrap;align-items:center;gap:4px 14px;padding-top:5px', parent);
  const player = meta.frames.length > 1 ? row(null) : null;
  if (player) root.insertBefore(player, details);
  const dims = meta.high.map((h, i) => h - meta.low[i]);
  const center = dims.map((d, i) => meta.low[i] + d / 2), radius = Math.hypot(...dims) / 2 || 1;
  const names = ['x', 'y', 'z'];
  const home = { az: meta.azimuth, el: meta.elevation, zoom: 1, pan: [0, 0] };
  const state = {
    ...home, pan: [0, 0], channel: 0, frame: meta.frames.length - 1, alpha: meta.alpha, size: meta.size, outline: meta.outline,
    map: meta.map, low: null, high: null, dark: null, ortho: !meta.perspective,
    clip: meta.low.map((l, i) => [l, meta.high[i]]), threshold: [-Infinity, Infinity], playing: false,
  };
  // What must be made again before it is shown. dirty: the picture; stale: the set of things in it; worded: the text over it.
  let frames = null, gl = null, canvas = null, overlay = null, programs = null, visible = null, dirty = true, stale = true, worded = false;
  let hover = null, raf = 0, wanted = false, drawn = 0;
  // flight: the frame that the graphics card is drawing. coarse: how coarse frames must be to keep up while the view turns or sliders move.
  let flight = null, coarse = { turn: 0, build: 0 }, moving = 0, rough = false;

  // ---- values ------------------------------------------------------------------------------------------------
  const channelOf = (f = frames[state.frame]) => f.channels[state.channel] || null;
  const valueOf = (c, q) => !c || q === 65535 ? NaN : c.low + q / 65534 * (c.high - c.low);
  function scaleOf() { // the colour bar's ends: the same for all frames, so that frames can be compared
    if (state.low !== null) return [state.low, state.high];
    let [low, high] = meta.ranges[state.channel] || [0, 1];
    if (low < 0 && Math.min(-low, high) >= .05 * Math.max(-low, high)) { high = Math.max(high, -low); low = -high; }
    return low < high ? [low, high] : [low - 0.5, low + 0.5];
  }

  // ---- camera --------------------------------------------------------------------------------------------------
  function camera() {
    const a = state.az * Math.PI / 180, e = state.el * Math.PI / 180;
    const rows = [[-Math.sin(a), Math.cos(a), 0],
      [-Math.sin(e) * Math.cos(a), -Math.sin(e) * Math.sin(a), Math.cos(e)],
      [Math.cos(e) * Math.cos(a), Math.cos(e) * Math.sin(a), Math.sin(e)]].map(([x, y, z]) =>
      meta.up === 2 ? [x, y, z] : meta.up === 1 ? [x, z, -y] : [z, x, y]);
    const D = 4 * radius, H = radius * 1.08 / state.zoom, w = canvas.width, h = canvas.height;
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

  // ---- what is shown -------------------------------------------------------------------------------------------
  function rebuild() {
    const f = frames[state.frame], c = channelOf(f), q = f.planes[state.channel];
    if (mesh) {
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
      visible = { n, p, normals: cornerNormals, value, order: Uint32Array.from({ length: n }, (_, i) => i) };
    } else if (points) {
      visible = { n: f.n };
    } else {
      const s = f.sites, [[x0, x1], [y0, y1], [z0, z1]] = state.clip, ids = new Uint32Array(f.n);
      const [lo, hi] = state.threshold, all = !c || lo === -Infinity && hi === Infinity;
      let n = 0;
      for (let i = 0; i < f.n; i++) {
        const x = s[3 * i], y = s[3 * i + 1], z = s[3 * i + 2];
        if (x < x0 || x >= x1 || y < y0 || y >= y1 || z < z0 || z >= z1) continue;
        if (!all) { const v = valueOf(c, q[i]); if (!(v >= lo && v <= hi)) continue; }
        ids[n++] = i;
      }
      for (const level of visible ? visible.levels : []) if (gl && level) gl.deleteTexture(level.texture);
      visible = { kept: n, ids: ids.subarray(0, n), levels: [] };
    }
    dirty = true;
    stale = false;
    status();
  }
  const surface = k => visible.levels[k] || (visible.levels[k] = wavemeshSurface(meta.shape, frames[state.frame].sites, visible, state.size >= 1, k));
  function pack(level, order) {
    const f = frames[state.frame];
    wavemeshFaces(level, f.sites, f.planes[state.channel], order);
  }
  const farToNear = (cam, n, at) => wavemeshFarToNear(cam.rows[2], center, radius, n, at);
  function sortTranslucent(cam, level) {
    if (mesh) {
      const p = visible.p, middle = k => [0, 1, 2].map(i => (p[9 * k + i] + p[9 * k + 3 + i] + p[9 * k + 6 + i]) / 3);
      farToNear(cam, visible.n / 3, middle).forEach((face, k) => { for (let i = 0; i < 3; i++) visible.order[3 * k + i] = 3 * face + i; });
      visible.uploaded = false;
    } else {
      const s = frames[state.frame].sites, { ids } = level, p = [0, 0, 0];
      pack(level, farToNear(cam, ids.length, j => { for (let i = 0; i < 3; i++) p[i] = s[3 * ids[j] + i] + .5; return p; }));
    }
  }

  // ---- drawing -------------------------------------------------------------------------------------------------
  function start() {
    canvas = $('canvas', 'position:absolute;inset:0;width:100%;height:100%;touch-action:none;outline:none', stage, { tabIndex: 0 });
    canvas.setAttribute('aria-label', '3D view; arrow keys turn it, plus and minus zoom');
    gl = canvas.getContext('webgl2', { antialias: true, preserveDrawingBuffer: false, powerPreference: 'high-performance' });
    if (!gl) { canvas.remove(); canvas = null; say('WebGL 2 is not available: the picture stays.'); return false; }
    overlay = $('canvas', 'position:absolute;inset:0;width:100%;height:100%;pointer-events:none', stage);
    programs = { main: wavemeshProgram(gl, wavemeshShaders[mesh ? 'mesh' : points ? 'points' : 'voxels']), line: wavemeshProgram(gl, wavemeshShaders.line) };
    programs.buffers = [0, 1, 2].map(() => gl.createBuffer());
    programs.box = gl.createBuffer();
    programs.vao = gl.createVertexArray();
    programs.boxVao = gl.createVertexArray();
    programs.ramp = gl.createTexture();
    programs.pick = { fb: gl.createFramebuffer(), color: gl.createRenderbuffer(), depth: gl.createRenderbuffer(), size: '' };
    programs.index = gl.createBuffer();
    gl.bindVertexArray(programs.boxVao);
    gl.bindBuffer(gl.ARRAY_BUFFER, programs.box);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 3, gl.FLOAT, false, 0, 0);
    loadRamp();
    listen();
    if (visible) for (const level of voxels ? visible.levels : [visible]) if (level) { level.uploaded = false; level.texture = null; }
    flight = null;
    still.style.visibility = 'hidden';
    active.push(api);
    while (active.length > 8) active[0].release();
    dirty = true;
    return true;
  }
  function loadRamp() {
    const stops = ramps[state.map], bytes = new Uint8Array(1024);
    if (meta.palette) meta.palette.forEach((color, i) => bytes.set([...color, 255], 4 * i));
    else for (let i = 0; i < 256; i++) {
      const t = i / 255 * 16, k = Math.min(15, t | 0), p = t - k;
      for (let c = 0; c < 3; c++) {
        const v = s => parseInt(stops.substr(s * 6 + c * 2, 2), 16);
        bytes[4 * i + c] = Math.round(v(k) + (v(k + 1) - v(k)) * p);
      }
      bytes[4 * i + 3] = 255;
    }
    state.ramp = bytes;
    if (!gl) return;
    gl.bindTexture(gl.TEXTURE_2D, programs.ramp);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, bytes);
    for (const [k, v] of [[gl.TEXTURE_MIN_FILTER, gl.NEAREST], [gl.TEXTURE_MAG_FILTER, gl.NEAREST], [gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE], [gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE]]) gl.texParameteri(gl.TEXTURE_2D, k, v);
  }
  function upload(level) {
    if (level.uploaded) return;
    level.uploaded = true;
    if (points) {
      gl.bindVertexArray(programs.vao);
      gl.bindBuffer(gl.ARRAY_BUFFER, programs.buffers[0]);
      gl.bufferData(gl.ARRAY_BUFFER, frames[state.frame].at, gl.STATIC_DRAW);
      gl.enableVertexAttribArray(0);
      gl.vertexAttribIPointer(0, 4, gl.UNSIGNED_SHORT, 0, 0);
      return;
    }
    if (voxels) {
      if (!level.texture) {
        level.texture = gl.createTexture();
        gl.bindTexture(gl.TEXTURE_2D, level.texture);
        for (const k of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, k, gl.NEAREST);
      }
      gl.bindTexture(gl.TEXTURE_2D, level.texture);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA16UI, 4096, level.rows, 0, gl.RGBA_INTEGER, gl.UNSIGNED_SHORT, level.data);
      return;
    }
    gl.bindVertexArray(programs.vao);
    const put = (i, data, size, type, integer) => {
      gl.bindBuffer(gl.ARRAY_BUFFER, programs.buffers[i]);
      gl.bufferData(gl.ARRAY_BUFFER, data, gl.DYNAMIC_DRAW);
      gl.enableVertexAttribArray(i);
      if (integer) gl.vertexAttribIPointer(i, size, type, 0, 0); else gl.vertexAttribPointer(i, size, type, false, 0, 0);
    };
    put(0, level.p, 3, gl.FLOAT);
    put(1, level.normals, 3, gl.FLOAT);
    put(2, level.value, 1, gl.UNSIGNED_SHORT, true);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, programs.index);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, level.order, gl.DYNAMIC_DRAW);
  }
  function scene(cam, level, pick) {
    const { p, u } = programs.main, c = channelOf(), [low, high] = scaleOf();
    gl.useProgram(p);
    gl.uniformMatrix4fv(u.vp, false, cam.vp);
    gl.uniformMatrix3fv(u.rot, false, cam.rot);
    gl.uniform3fv(u.eye, cam.eye);
    gl.uniform4f(u.scale, c ? c.low : 0, c ? c.high : 1, low, high);
    gl.uniform1f(u.size, state.size);
    gl.uniform1f(u.plain, c ? 0 : 1);
    gl.uniform1f(u.alpha, pick ? 1 : state.alpha);
    gl.uniform1f(u.outline, state.outline ? 1 : 0);
    gl.uniform1i(u.pick, pick ? 1 : 0);
    gl.uniform3fv(u.clipLow, state.clip.map((v, i) => v[0] - (v[0] <= meta.low[i] ? radius : 0)));
    gl.uniform3fv(u.clipHigh, state.clip.map((v, i) => v[1] + (v[1] >= meta.high[i] ? radius : 0)));
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, programs.ramp);
    gl.uniform1i(u.ramp, 0);
    gl.bindVertexArray(programs.vao);
    if (points) {
      const ratio = canvas.width / stage.clientWidth, part = t => c ? (t - c.low) / (c.high - c.low || 1) * 65534 : 0;
      gl.uniform3fv(u.origin, meta.low);
      gl.uniform1f(u.cell, meta.cell);
      gl.uniform1f(u.side, Math.max(1, state.size * ratio));
      gl.uniform2f(u.cut, Math.max(0, part(state.threshold[0])), Math.min(65534, part(state.threshold[1])));
      gl.uniform1i(u.mode, meta.palette ? 1 : c ? 0 : 2);
      // While the view turns on a slow machine, only the first few points are drawn. They cover the whole cloud.
      return gl.drawArrays(gl.POINTS, 0, Math.ceil(level.n / 4 ** (pick ? 0 : level.k || 0)));
    }
    if (mesh) return gl.drawElements(gl.TRIANGLES, level.n, gl.UNSIGNED_INT, 0);
    gl.activeTexture(gl.TEXTURE1);
    gl.bindTexture(gl.TEXTURE_2D, level.texture);
    gl.activeTexture(gl.TEXTURE0);
    gl.uniform1i(u.faces, 1);
    gl.uniform1f(u.cell, 1 << level.k);
    if (level.sorted) return gl.drawArrays(gl.TRIANGLES, 0, 6 * level.faces);
    // Draws only directions that can face the eye: three of six, or more if the eye is within the grid's extent along an axis.
    for (let f = 0; f < 6; f++) {
      const axis = f >> 1, faced = f & 1 ? cam.eye[axis] > meta.low[axis] : cam.eye[axis] < meta.high[axis];
      if (faced && level.counts[f]) gl.drawArrays(gl.TRIANGLES, 6 * level.starts[f], 6 * level.counts[f]);
    }
  }
  function ready(cam, k, sort) { // returns what to draw, uploaded to the graphics card
    const level = voxels ? surface(k) : visible;
    if (points) level.k = k;
    else if (sort) sortTranslucent(cam, level); else if (voxels && level.sorted !== false) pack(level, null);
    upload(level);
    return level;
  }
  function draw(full) {
    if (!gl || gl.isContextLost()) return;
    if (state.playing) step();
    const begun = performance.now(), kind = stale || voxels && !visible.levels[0] ? 'build' : 'turn', k = full || mesh || !moving ? 0 : coarse[kind];
    if (stale) rebuild();
    const ratio = Math.min(2, window.devicePixelRatio || 1), w = Math.round(stage.clientWidth * ratio), h = Math.round(stage.clientHeight * ratio);
    if (!w || !h) return; // the stage is not on the page
    if (canvas.width !== w || canvas.height !== h) { for (const c of [canvas, overlay]) { c.width = w; c.height = h; } dirty = true; }
    if (state.playing) ask();
    const cam = camera(), paper = colors().paper;
    if (!dirty) { if (worded) write(cam, ratio); return; }
    dirty = programs.pick.fresh = false;
    const level = ready(cam, k, state.alpha < 1);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.viewport(0, 0, w, h);
    gl.clearColor(...paper, 1);
    gl.enable(gl.DEPTH_TEST);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const lines = walls(cam), edges = axisEdges(cam).flatMap(e => [e.at(meta.low[e.axis]), e.at(meta.high[e.axis])]);
    gl.useProgram(programs.line.p);
    gl.uniformMatrix4fv(programs.line.u.vp, false, cam.vp);
    gl.bindVertexArray(programs.boxVao);
    gl.bindBuffer(gl.ARRAY_BUFFER, programs.box);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([...lines, ...edges].flat()), gl.DYNAMIC_DRAW);
    gl.uniform4f(programs.line.u.ink, ...(dark() ? [.28, .31, .35, 1] : [.8, .82, .84, 1]));
    gl.drawArrays(gl.LINES, 0, lines.length);
    gl.uniform4f(programs.line.u.ink, ...(dark() ? [.7, .73, .77, 1] : [.3, .33, .37, 1]));
    gl.drawArrays(gl.LINES, lines.length, edges.length);
    if (state.alpha < 1) { gl.enable(gl.BLEND); gl.blendFuncSeparate(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA, gl.ONE, gl.ONE_MINUS_SRC_ALPHA); }
    scene(cam, level, false);
    gl.disable(gl.BLEND);
    write(cam, ratio);
    if (!full) {
      flight = { sync: gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0), begun, kind, k, first: !drawn };
      gl.flush();
      setTimeout(land, 4);
    }
    rough = k > 0;
    drawn++;
  }
  // A frame starts only after the last one is complete. On a slow machine, frames would otherwise queue up and lag behind the pointer.
  function land() {
    if (!gl || !flight || gl.isContextLost()) return;
    if (gl.getSyncParameter(flight.sync, gl.SYNC_STATUS) !== gl.SIGNALED) return setTimeout(land, 4);
    const { kind, k, first } = flight, took = performance.now() - flight.begun;
    gl.deleteSync(flight.sync);
    flight = null;
    if (!mesh && !first && !document.hidden) {
      if (took > 80) coarse[kind] = Math.min(3, Math.max(coarse[kind], k + 1));
      else if (moving && took < 15 && k && k === coarse[kind]) coarse[kind]--;
    }
    if (dirty || worded || state.playing) ask();
  }
  function handled() { // the user is moving something: coarse frames are enough until 200 ms without a move
    clearTimeout(moving);
    moving = setTimeout(() => { moving = 0; if (rough) change(); }, 200);
  }
  const ask = () => { if (gl && !raf) raf = requestAnimationFrame(() => { raf = 0; if (!flight) draw(); }); };
  const change = () => { dirty = true; ask(); };
  const reword = () => { worded = true; ask(); };
  const move = () => { handled(); change(); };

  function pickAt(px, py) { // the voxel, face or point at a position in CSS pixels of the stage
    if (!gl || !visible || !(voxels ? visible.kept : visible.n)) return null;
    const cam = camera(), w = canvas.width, h = canvas.height, t = programs.pick, ratio = w / stage.clientWidth;
    gl.bindFramebuffer(gl.FRAMEBUFFER, t.fb);
    if (t.size !== w + 'x' + h) {
      t.size = w + 'x' + h;
      t.fresh = false;
      gl.bindRenderbuffer(gl.RENDERBUFFER, t.color);
      gl.renderbufferStorage(gl.RENDERBUFFER, gl.RGBA8, w, h);
      gl.framebufferRenderbuffer(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.RENDERBUFFER, t.color);
      gl.bindRenderbuffer(gl.RENDERBUFFER, t.depth);
      gl.renderbufferStorage(gl.RENDERBUFFER, gl.DEPTH_COMPONENT24, w, h);
      gl.framebufferRenderbuffer(gl.FRAMEBUFFER, gl.DEPTH_ATTACHMENT, gl.RENDERBUFFER, t.depth);
    }
    // The numbers of all voxels, faces or points in the picture are kept until it changes. To look one up then costs reading one pixel.
    if (!t.fresh) {
      t.fresh = true;
      const level = ready(cam, 0, false);
      gl.bindFramebuffer(gl.FRAMEBUFFER, t.fb);
      gl.viewport(0, 0, w, h);
      gl.enable(gl.DEPTH_TEST);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      scene(cam, level, true);
    }
    const out = new Uint8Array(4);
    gl.readPixels(Math.floor(px * ratio), h - 1 - Math.floor(py * ratio), 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, out);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    const id = out[0] + (out[1] << 8) + (out[2] << 16) + out[3] * 16777216 - 1;
    if (id < 0) return null;
    const f = frames[state.frame], c = channelOf(f);
    if (mesh) {
      const v = f.faces[3 * id];
      return { face: id, value: c ? valueOf(c, f.planes[state.channel][v]) : null, position: [0, 1, 2].map(i => meta.low[i] + f.vertices[i][v] / 65534 * dims[i]) };
    }
    if (points) {
      const q = f.at[4 * id + 3], position = [0, 1, 2].map(i => meta.low[i] + f.at[4 * id + i] * meta.cell);
      return { point: position, value: c ? valueOf(c, q) : null, label: meta.palette ? meta.classes[q] || `class ${q}` : null };
    }
    const i = visible.levels[0].owner[id];
    return { site: [0, 1, 2].map(k => f.sites[3 * i + k]), value: c ? valueOf(c, f.planes[state.channel][i]) : null };
  }

  // ---- box: the far walls with a grid, and the edges that carry the ticks -----------------------------------------------
  const marksOf = axis => ticks(meta.low[axis], meta.high[axis], 5);
  const sides = cam => names.map((_, i) => cam.eye[i] > meta.high[i] ? [meta.low[i], meta.high[i]] : [meta.high[i], meta.low[i]]); // far, near
  function walls(cam) {
    const side = sides(cam), points = [];
    for (let wall = 0; wall < 3; wall++) for (let along = 0; along < 3; along++) {
      const across = 3 - wall - along;
      if (along === wall) continue;
      for (const v of [...marksOf(across), meta.low[across], meta.high[across]]) for (const end of [meta.low[along], meta.high[along]]) {
        const p = side.map(([far]) => far);
        p[across] = v; p[along] = end;
        points.push(p);
      }
    }
    return points;
  }
  function axisEdges(cam) { // horizontal axes are at the near bottom edges, the vertical one at the left of the outline
    const side = sides(cam), up = meta.up, bottom = cam.rows[2][up] > 0 ? meta.low[up] : meta.high[up];
    return names.map((_, axis) => {
      let edge = side.map(([, near]) => near);
      if (axis === up) {
        const [s, t] = [(axis + 1) % 3, (axis + 2) % 3], a = edge.slice(), b = edge.slice();
        a[s] = side[s][0]; b[t] = side[t][0];
        edge = project(cam, a)[0] < project(cam, b)[0] ? a : b;
      } else edge[up] = bottom;
      return { axis, marks: marksOf(axis), at: v => { const p = edge.slice(); p[axis] = v; return p; } };
    });
  }

  // ---- text over the picture -----------------------------------------------------------------------------------
  function dark() {
    if (state.dark !== null) return state.dark;
    for (let e = root.parentElement; e; e = e.parentElement) {
      const m = getComputedStyle(e).backgroundColor.match(/[\d.]+/g);
      if (m && (m.length < 4 || +m[3] > .5)) return (+m[0] * 299 + +m[1] * 587 + +m[2] * 114) / 1000 < 128;
    }
    return matchMedia('(prefers-color-scheme: dark)').matches;
  }
  const colors = () => dark() ? { paper: [.066, .075, .09], ink: '#d7dbe2' } : { paper: [1, 1, 1], ink: '#282c34' };
  const number = v => v === null ? '' : Number.isNaN(v) ? 'NaN' : Number.isInteger(v) ? String(v) : Math.abs(v) < 1e-3 || Math.abs(v) >= 1e5 ? v.toExponential(2) : String(+v.toPrecision(4));
  function ticks(low, high, n) {
    const rough = (high - low) / n, power = 10 ** Math.floor(Math.log10(rough)), s = [1, 2, 5, 10].find(m => m * power >= rough * .999) * power, out = [];
    for (let k = Math.ceil(low / s - 1e-6); k <= high / s + 1e-6; k++) out.push(k * s);
    return out;
  }
  function write(cam, ratio) {
    worded = false;
    const g = overlay.getContext('2d'), w = stage.clientWidth, h = stage.clientHeight;
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, w, h);
    g.font = '12px system-ui,sans-serif';
    g.fillStyle = g.strokeStyle = colors().ink;
    g.textBaseline = 'middle';
    const mid = project(cam, center);
    for (const { axis, at: point, marks } of axisEdges(cam)) {
      const at = v => project(cam, point(v)), a = at(meta.low[axis]), b = at(meta.high[axis]), length = Math.hypot(b[0] - a[0], b[1] - a[1]);
      if (length < 12) continue;
      let o = [-(b[1] - a[1]) / length, (b[0] - a[0]) / length];
      const m = [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
      if (o[0] * (m[0] - mid[0]) + o[1] * (m[1] - mid[1]) < 0) o = [-o[0], -o[1]];
      g.textAlign = o[0] > .35 ? 'left' : o[0] < -.35 ? 'right' : 'center';
      const every = Math.max(1, Math.ceil(22 * marks.length / length));
      marks.filter((_, i) => i % every === 0).forEach(v => {
        const p = at(v);
        g.beginPath(); g.moveTo(...p); g.lineTo(p[0] + o[0] * 4, p[1] + o[1] * 4); g.stroke();
        g.fillText(number(v), p[0] + o[0] * 9, p[1] + o[1] * 11);
      });
      const beyond = Math.max(30, 18 + Math.max(...marks.map(v => g.measureText(number(v)).width))); // room for the widest tick label
      g.font = 'bold 13px system-ui,sans-serif';
      g.fillText(names[axis], m[0] + o[0] * beyond, m[1] + o[1] * 26);
      g.font = '12px system-ui,sans-serif';
    }
    g.textAlign = 'left';
    if (channelOf()) {
      const [low, high] = scaleOf(), x = w - 66, top = 34, tall = Math.max(40, h - 80);
      const fill = g.createLinearGradient(0, top + tall, 0, top);
      for (let i = 0; i <= 16; i++) fill.addColorStop(i / 16, `rgb(${state.ramp.slice(i * 255 / 16 * 4 & ~3, (i * 255 / 16 * 4 & ~3) + 3).join()})`);
      g.fillStyle = fill;
      g.fillRect(x, top, 12, tall);
      g.fillStyle = colors().ink;
      g.strokeRect(x, top, 12, tall);
      for (const v of ticks(low, high, 5)) g.fillText('– ' + number(v), x + 12, top + tall * (1 - (v - low) / (high - low)));
      g.fillText(meta.channels[state.channel] || '', x - 10, top - 14);
    }
    if (meta.palette) meta.classes.forEach((name, i) => {
      g.fillStyle = `rgb(${meta.palette[i].join()})`;
      g.fillRect(w - 110, 12 + 18 * i, 11, 11);
      g.fillStyle = colors().ink;
      g.fillText(name, w - 94, 18 + 18 * i);
    });
    if (frames.length > 1) g.fillText(frames[state.frame].label, 8, 14);
    if (hover) {
      const text = hover.hit.site ? `x ${hover.hit.site[0]}, y ${hover.hit.site[1]}, z ${hover.hit.site[2]}` : hover.hit.point ? hover.hit.point.map((v, i) => `${names[i]} ${number(v)}`).join(', ') : `face ${hover.hit.face} near ${hover.hit.position.map(number).join(', ')}`;
      const full = hover.hit.label ? `${text}: ${hover.hit.label}` : hover.hit.value === null ? text : `${text} = ${number(hover.hit.value)}`;
      const width = g.measureText(full).width + 12, x = Math.min(hover.x + 12, w - width - 4), y = Math.max(hover.y - 14, 14);
      g.fillStyle = dark() ? 'rgba(40,44,52,.92)' : 'rgba(255,255,255,.92)';
      g.fillRect(x, y - 11, width, 22);
      g.strokeRect(x, y - 11, width, 22);
      g.fillStyle = colors().ink;
      g.fillText(full, x + 6, y);
    }
  }

  // ---- pointer, wheel and keys; full screen, PNG and animation -------------------------------------------------
  function listen() {
    const touches = new Map();
    let moved = null;
    const turn = (dx, dy) => { state.az -= dx * .5; state.el = Math.max(-90, Math.min(90, state.el + dy * .5)); move(); };
    const pan = (dx, dy) => { state.pan[0] += 2 * dx / stage.clientWidth; state.pan[1] -= 2 * dy / stage.clientHeight; move(); };
    const zoom = k => { state.zoom = Math.max(.2, Math.min(40, state.zoom * k)); move(); };
    const point = () => {
      if (!canvas) return;
      if (dirty || flight || moving) return requestAnimationFrame(point); // waits for the frame under the pointer
      canvas.asked = false;
      if (touches.size) return;
      const hit = pickAt(...moved), had = hover;
      hover = hit && { hit, x: moved[0], y: moved[1] };
      if (had || hover) reword();
    };
    canvas.addEventListener('pointerdown', e => { canvas.setPointerCapture(e.pointerId); touches.set(e.pointerId, [e.clientX, e.clientY]); canvas.focus({ preventScroll: true }); if (hover) { hover = null; reword(); } e.preventDefault(); });
    const leave = e => touches.delete(e.pointerId);
    canvas.addEventListener('pointerup', leave);
    canvas.addEventListener('pointercancel', leave);
    canvas.addEventListener('pointerleave', () => { if (hover) { hover = null; reword(); } });
    canvas.addEventListener('pointermove', e => {
      const last = touches.get(e.pointerId);
      if (!last) {
        moved = [e.offsetX, e.offsetY];
        if (!canvas.asked) { canvas.asked = true; requestAnimationFrame(point); }
        return;
      }
      const [dx, dy] = [e.clientX - last[0], e.clientY - last[1]];
      if (touches.size === 2) {
        const other = [...touches].find(([id]) => id !== e.pointerId)[1];
        const before = Math.hypot(last[0] - other[0], last[1] - other[1]), now = Math.hypot(e.clientX - other[0], e.clientY - other[1]);
        zoom(now / Math.max(1, before));
        pan(dx / 2, dy / 2);
      } else if (e.buttons & 6 || e.shiftKey) pan(dx, dy);
      else turn(dx, dy);
      touches.set(e.pointerId, [e.clientX, e.clientY]);
    });
    canvas.addEventListener('contextmenu', e => e.preventDefault());
    // The wheel zooms after a click on the view. Before that, it scrolls the notebook.
    canvas.addEventListener('wheel', e => { if (document.activeElement === canvas || e.ctrlKey) { e.preventDefault(); zoom(Math.exp(-e.deltaY * .0015)); } }, { passive: false });
    canvas.addEventListener('dblclick', () => reset());
    canvas.addEventListener('keydown', e => {
      const move = e.shiftKey ? pan : turn, keys = {
        ArrowLeft: () => move(-16, 0), ArrowRight: () => move(16, 0), ArrowUp: () => move(0, -16), ArrowDown: () => move(0, 16),
        '+': () => zoom(1.2), '=': () => zoom(1.2), '-': () => zoom(1 / 1.2), r: reset, f: fullScreen, s: save,
        o: () => { state.outline = !state.outline; change(); }, ' ': () => play(),
      };
      if (keys[e.key] && !e.ctrlKey && !e.metaKey && !e.altKey) { keys[e.key](); e.preventDefault(); e.stopPropagation(); }
    });
    canvas.addEventListener('webglcontextlost', e => { e.preventDefault(); if (gl) release(true); });
  }
  function reset() { Object.assign(state, { ...home, pan: [0, 0] }); change(); }
  function fullScreen() { if (document.fullscreenElement) document.exitFullscreen(); else if (root.requestFullscreen) root.requestFullscreen(); }
  root.addEventListener('fullscreenchange', () => {
    const full = document.fullscreenElement === root, { ink, paper } = colors();
    Object.assign(root.style, full ? { display: 'flex', flexDirection: 'column', padding: '8px', boxSizing: 'border-box', color: ink, background: `rgb(${paper.map(v => v * 255)})` } : { display: '', flexDirection: '', padding: '', boxSizing: '', color: '', background: '' });
    Object.assign(stage.style, full ? { flex: '1', aspectRatio: 'auto' } : { flex: '', aspectRatio: `${meta.width}/${meta.height}` });
    change();
  });
  function snapshot() {
    dirty = true;
    draw(true);
    const c = $('canvas', '', null, { width: canvas.width, height: canvas.height }), g = c.getContext('2d');
    g.drawImage(canvas, 0, 0);
    g.drawImage(overlay, 0, 0);
    return c;
  }
  function save() {
    if (!gl) return;
    $('a', '', null, { href: snapshot().toDataURL('image/png'), download: (meta.title || 'wavemesh') + '.png' }).click();
  }
  let due = 0;
  function play() { if (frames.length > 1) { state.playing = !state.playing; due = 0; ask(); controls.sync(); } }
  function step() {
    const now = performance.now();
    if (now < due) return;
    due = now + 1000 / meta.fps;
    show((state.frame + 1) % frames.length);
  }
  function show(frame) { state.frame = frame; stale = true; dirty = true; controls.sync(); ask(); }

  // ---- controls ------------------------------------------------------------------------------------------------
  const say = text => { note.textContent = text; };
  function status() {
    if (mesh) say(`${(visible.n / 3).toLocaleString('en')} faces`);
    else if (points) say(`${visible.n.toLocaleString('en')} points${meta.thinned}`);
    else say(`${visible.kept.toLocaleString('en')} of ${frames[state.frame].n.toLocaleString('en')} voxels shown`);
  }
  const controls = (() => {
    const all = [];
    let box = null;
    const group = (name) => { const l = $('label', 'display:inline-flex;align-items:center;gap:4px;white-space:nowrap', box); $('span', 'opacity:.75', l, { textContent: name }); return l; };
    const slider = (name, min, max, get, set, steps, within) => {
      const i = $('input', 'width:80px;margin:0', within || group(name), { type: 'range', min, max, step: steps || (max - min) / 200 });
      i.setAttribute('aria-label', name);
      i.oninput = () => { set(+i.value); handled(); ask(); };
      all.push(() => { i.value = get(); });
      return i;
    };
    const button = (text, hint, act) => { const b = $('button', 'font:inherit;padding:1px 8px;border:1px solid rgba(127,127,127,.5);border-radius:4px;background:transparent;color:inherit;cursor:pointer', box, { textContent: text, title: hint, type: 'button' }); b.onclick = act; return b; };
    const select = (name, options, get, set) => {
      const s = $('select', 'font:inherit;color:inherit;background:transparent', group(name));
      s.setAttribute('aria-label', name);
      options.forEach((o, i) => $('option', 'color:#222;background:#fff', s, { textContent: o, value: i }));
      s.onchange = () => set(+s.value);
      all.push(() => { s.value = get(); });
    };
    function build() {
      if (player) {
        box = player;
        const b = button('play', 'space', play);
        b.style.minWidth = '5em';
        all.push(() => { b.textContent = state.playing ? 'pause' : 'play'; });
        slider('step', 0, frames.length - 1, () => state.frame, v => { state.playing = false; show(v); }, 1).style.width = '220px';
      }
      box = row(details);
      button('reset', 'first view (r, double click)', reset);
      button('full screen', 'f', fullScreen);
      button('save PNG', 's', save);
      button('light / dark', 'theme of the view', () => { state.dark = !dark(); change(); });
      if (!points) button(mesh ? 'wireframe' : 'outline', 'o', () => { state.outline = !state.outline; change(); });
      button('perspective', 'parallel or perspective', () => { state.ortho = !state.ortho; change(); });
      box = row(details);
      if (meta.channels.length > 1) select('channel', meta.channels, () => state.channel, i => { state.channel = i; state.low = null; state.threshold = [-Infinity, Infinity]; stale = true; controls.sync(); change(); });
      if (meta.channels.length) {
        const maps = Object.keys(ramps);
        select('colours', maps, () => maps.indexOf(state.map), i => { state.map = maps[i]; loadRamp(); change(); });
      }
      if (!points) slider('opacity', .05, 1, () => state.alpha, v => { state.alpha = v; dirty = true; });
      if (points) slider('size', .5, 12, () => state.size, v => { state.size = v; dirty = true; });
      if (voxels) slider('size', .2, 1, () => state.size, v => { state.size = v; stale = true; });
      if (meta.channels.length && !mesh) {
        const range = () => meta.ranges[state.channel];
        const part = (v, side) => { const [l, h] = range(); return Number.isFinite(v) ? (v - l) / (h - l || 1) : side; };
        const at = t => { const [l, h] = range(); return l + t * (h - l); };
        const both = group('value');
        slider('value from', 0, 1, () => part(state.threshold[0], 0), t => { state.threshold[0] = t <= 0 ? -Infinity : at(t); stale = stale || voxels; dirty = true; }, 0, both);
        slider('value to', 0, 1, () => part(state.threshold[1], 1), t => { state.threshold[1] = t >= 1 ? Infinity : at(t); stale = stale || voxels; dirty = true; }, 0, both);
      }
      box = row(details);
      names.forEach((name, i) => {
        // With steps of a fraction of the box, rounding would stop the slider short of the end.
        const steps = voxels ? 1 : 'any';
        const both = group(name);
        slider(name + ' from', meta.low[i], meta.high[i], () => state.clip[i][0], v => { state.clip[i][0] = v; stale = voxels || stale; dirty = true; }, steps, both);
        slider(name + ' to', meta.low[i], meta.high[i], () => state.clip[i][1], v => { state.clip[i][1] = v; stale = voxels || stale; dirty = true; }, steps, both);
      });
      sync();
    }
    const sync = () => all.forEach(f => f());
    return { build, sync };
  })();

  // ---- the WebGL context: created when the view is visible, released when it is not ------------------------------
  const active = window.wavemeshActive = window.wavemeshActive || [];
  function release(lost) {
    if (!gl) return;
    if (!lost && root.isConnected && stage.clientWidth && stage.clientHeight) { still.src = snapshot().toDataURL('image/png'); still.style.cssText = 'position:absolute;inset:0;width:100%;height:100%'; }
    still.style.visibility = 'visible';
    const extension = gl.getExtension('WEBGL_lose_context');
    gl = null;
    if (extension && !lost) extension.loseContext();
    canvas.remove();
    overlay.remove();
    canvas = overlay = programs = null;
    state.playing = false;
    active.splice(active.indexOf(api), 1);
  }
  async function seen() {
    wanted = true;
    try {
      if (!frames) {
        if (packed === null) return;
        const data = packed;
        packed = null;
        frames = await wavemeshPayload(data, meta);
        controls.build();
      }
      if (wanted && !gl && start()) draw();
    } catch (error) { say('The view could not be started: ' + error.message); }
  }
  const api = root.wavemesh = { state, meta, pickAt, release: () => release(false), start: seen, change: () => { stale = true; change(); }, camera, project: p => project(camera(), p), frame: () => frames[state.frame], drawn: () => drawn, idle: () => !flight && !dirty && !stale && !worded && !moving, hover: () => hover, isActive: () => !!gl, visible: () => visible, canvas: () => canvas, snapshot };
  new IntersectionObserver(entries => {
    for (const e of entries) if (e.isIntersecting) seen(); else { wanted = false; release(false); }
  }, { threshold: .02 }).observe(stage);
  stage.addEventListener('pointerdown', () => { if (!gl) seen(); });
  new ResizeObserver(() => change()).observe(stage);
}
