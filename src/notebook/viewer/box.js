// The box around what is shown: its far walls with a grid, and the edges that carry the ticks.
function wavemeshBox(view) {
  const { meta, names } = view;
  const marksOf = axis => wavemeshTicks(meta.low[axis], meta.high[axis], 5);
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
        edge = view.project(cam, a)[0] < view.project(cam, b)[0] ? a : b;
      } else edge[up] = bottom;
      return { axis, marks: marksOf(axis), at: v => { const p = edge.slice(); p[axis] = v; return p; } };
    });
  }
  function drawBox(cam) {
    const { gl, programs } = view;
    const lines = walls(cam), edges = axisEdges(cam).flatMap(e => [e.at(meta.low[e.axis]), e.at(meta.high[e.axis])]);
    gl.useProgram(programs.line.p);
    gl.uniformMatrix4fv(programs.line.u.vp, false, cam.vp);
    gl.bindVertexArray(programs.boxVao);
    gl.bindBuffer(gl.ARRAY_BUFFER, programs.box);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([...lines, ...edges].flat()), gl.DYNAMIC_DRAW);
    gl.uniform4f(programs.line.u.ink, ...(view.dark() ? [.28, .31, .35, 1] : [.8, .82, .84, 1]));
    gl.drawArrays(gl.LINES, 0, lines.length);
    gl.uniform4f(programs.line.u.ink, ...(view.dark() ? [.7, .73, .77, 1] : [.3, .33, .37, 1]));
    gl.drawArrays(gl.LINES, lines.length, edges.length);
  }
  return { axisEdges, drawBox };
}
