// What is on the graphics card: programs, buffers and textures.
function wavemeshCard(view) {
  const { state, stage, mesh, points, voxels } = view;
  function openCard() { // false where there is no WebGL 2
    const canvas = wavemeshElement('canvas', 'position:absolute;inset:0;width:100%;height:100%;touch-action:none;outline:none', stage, { tabIndex: 0 });
    canvas.setAttribute('aria-label', '3D view; arrow keys turn it, plus and minus zoom');
    const gl = canvas.getContext('webgl2', { antialias: true, preserveDrawingBuffer: false, powerPreference: 'high-performance' });
    if (!gl) { canvas.remove(); view.say('WebGL 2 is not available: the picture stays.'); return false; }
    const overlay = wavemeshElement('canvas', 'position:absolute;inset:0;width:100%;height:100%;pointer-events:none', stage);
    Object.assign(view, { gl, canvas, overlay });
    const programs = view.programs = { main: wavemeshProgram(gl, wavemeshShaders[mesh ? 'mesh' : points ? 'points' : 'voxels']), line: wavemeshProgram(gl, wavemeshShaders.line) };
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
    return true;
  }
  function loadRamp() {
    view.makeRamp();
    const { gl } = view;
    if (!gl) return;
    gl.bindTexture(gl.TEXTURE_2D, view.programs.ramp);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, state.ramp);
    for (const [k, v] of [[gl.TEXTURE_MIN_FILTER, gl.NEAREST], [gl.TEXTURE_MAG_FILTER, gl.NEAREST], [gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE], [gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE]]) gl.texParameteri(gl.TEXTURE_2D, k, v);
  }
  function upload(level) {
    const { gl, programs } = view;
    if (level.uploaded) return;
    level.uploaded = true;
    if (points) {
      gl.bindVertexArray(programs.vao);
      gl.bindBuffer(gl.ARRAY_BUFFER, programs.buffers[0]);
      gl.bufferData(gl.ARRAY_BUFFER, view.frames[state.frame].at, gl.STATIC_DRAW);
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
  return { openCard, loadRamp, upload };
}
