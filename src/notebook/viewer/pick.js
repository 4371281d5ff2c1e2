// Finds what the pointer is at: draws the number of each voxel, face or point in place of its colour, and reads one pixel.
function wavemeshPick(view) {
  const { meta, state, stage, mesh, points, voxels, dims } = view;
  function pickAt(px, py) { // the voxel, face or point at a position in CSS pixels of the stage
    const { gl, canvas, visible, programs } = view;
    if (!gl || !visible || !(voxels ? visible.kept : visible.n)) return null;
    const cam = view.camera(), w = canvas.width, h = canvas.height, t = programs.pick, ratio = w / stage.clientWidth;
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
      const level = view.ready(cam, 0, false);
      gl.bindFramebuffer(gl.FRAMEBUFFER, t.fb);
      gl.viewport(0, 0, w, h);
      gl.enable(gl.DEPTH_TEST);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      view.scene(cam, level, true);
    }
    const out = new Uint8Array(4);
    gl.readPixels(Math.floor(px * ratio), h - 1 - Math.floor(py * ratio), 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, out);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    const id = out[0] + (out[1] << 8) + (out[2] << 16) + out[3] * 16777216 - 1;
    if (id < 0) return null;
    const f = view.frames[state.frame], c = view.channelOf(f);
    if (mesh) {
      const v = f.faces[3 * id];
      return { face: id, value: c ? view.valueOf(c, f.planes[state.channel][v]) : null, position: [0, 1, 2].map(i => meta.low[i] + f.vertices[i][v] / 65534 * dims[i]) };
    }
    if (points) {
      const q = f.at[4 * id + 3], position = [0, 1, 2].map(i => meta.low[i] + f.at[4 * id + i] * meta.cell);
      return { point: position, value: c ? view.valueOf(c, q) : null, label: meta.palette ? meta.classes[q] || `class ${q}` : null };
    }
    const i = visible.levels[0].owner[id];
    return { site: [0, 1, 2].map(k => f.sites[3 * i + k]), value: c ? view.valueOf(c, f.planes[state.channel][i]) : null };
  }
  return { pickAt };
}
