// The first view again, full screen, and the view as a picture.
function wavemeshScreen(view) {
  const { root, meta, state, stage, home } = view;
  function reset() { Object.assign(state, { ...home, pan: [0, 0] }); view.change(); }
  function fullScreen() { if (document.fullscreenElement) document.exitFullscreen(); else if (root.requestFullscreen) root.requestFullscreen(); }
  root.addEventListener('fullscreenchange', () => {
    const full = document.fullscreenElement === root, { ink, paper } = view.colors();
    Object.assign(root.style, full ? { display: 'flex', flexDirection: 'column', padding: '8px', boxSizing: 'border-box', color: ink, background: `rgb(${paper.map(v => v * 255)})` } : { display: '', flexDirection: '', padding: '', boxSizing: '', color: '', background: '' });
    Object.assign(stage.style, full ? { flex: '1', aspectRatio: 'auto' } : { flex: '', aspectRatio: `${meta.width}/${meta.height}` });
    view.change();
  });
  function snapshot() {
    view.dirty = true;
    view.draw(true);
    const { canvas, overlay } = view, c = wavemeshElement('canvas', '', null, { width: canvas.width, height: canvas.height }), g = c.getContext('2d');
    g.drawImage(canvas, 0, 0);
    g.drawImage(overlay, 0, 0);
    return c;
  }
  function save() {
    if (!view.gl) return;
    wavemeshElement('a', '', null, { href: snapshot().toDataURL('image/png'), download: (meta.title || 'wavemesh') + '.png' }).click();
  }
  return { reset, fullScreen, snapshot, save };
}
