// Draws the mesh, the points or the voxels, in colours or in numbers for the pointer.
function wavemeshScene(view) {
  const { meta, state, stage, mesh, points, voxels, radius } = view;
  function scene(cam, level, pick) {
    const { gl, canvas, programs } = view, { p, u } = programs.main, c = view.channelOf(), [low, high] = view.scaleOf();
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
    const level = voxels ? view.surface(k) : view.visible;
    if (points) level.k = k;
    else if (sort) view.sortTranslucent(cam, level); else if (voxels && level.sorted !== false) view.pack(level, null);
    view.upload(level);
    return level;
  }
  return { scene, ready };
}
