// Unpacks what payload.rs packed: base64 of gzip of frames. A frame has a mesh's faces, points or voxels, and their values.
async function wavemeshPayload(packed, meta) {
  const mesh = meta.kind === 'mesh', points = meta.kind === 'points';
  const bytes = Uint8Array.from(atob(packed), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  const data = new Uint8Array(await new Response(stream).arrayBuffer());
  let offset = 0;
  const varint = () => {
    let value = 0, shift = 1, byte;
    do { byte = data[offset++]; value += (byte & 127) * shift; shift *= 128; } while (byte > 127);
    return value;
  };
  const plane = (n, bits) => {
    const q = new Uint16Array(n);
    if (bits === 8) {
      for (let i = 0; i < n; i++) { const v = data[offset++]; q[i] = v === 255 ? 65535 : Math.round(v / 254 * 65534); }
    } else {
      for (let i = 0; i < n; i++) q[i] = data[offset + i] | data[offset + n + i] << 8;
      offset += 2 * n;
    }
    return q;
  };
  const made = [];
  for (const f of meta.frames) {
    const frame = { label: f.label, n: f.n };
    if (mesh) {
      frame.vertices = [0, 1, 2].map(() => plane(f.vertices, 16));
      frame.faces = new Uint32Array(3 * f.n);
      for (let i = 0, last = 0; i < frame.faces.length; i++) {
        const z = varint();
        last += z % 2 ? -(z + 1) / 2 : z / 2;
        frame.faces[i] = last;
      }
      frame.planes = f.channels.map(c => plane(f.vertices, c.bits));
    } else if (points) {
      // Morton keys are decoded 24 bits at a time. Neighbouring points are stored far apart, so that the first few cover the whole cloud.
      const at = new Uint16Array(4 * f.n), part = v => {
        v &= 0x249249; v = (v ^ v >> 2) & 0xc30c3; v = (v ^ v >> 4) & 0xf00f; return (v ^ v >> 8) & 255;
      };
      let step = Math.floor(f.n * .618034) | 1, a = f.n, b = step;
      while (b) [a, b] = [b, a % b];
      while (a > 1) { step += 2; a = f.n; b = step; while (b) [a, b] = [b, a % b]; }
      frame.places = new Uint32Array(f.n);
      for (let i = 0, key = -1, place = 0; i < f.n; i++, place = (place + step) % f.n) {
        key += varint() + 1;
        const high = Math.floor(key / 16777216), low = key % 16777216;
        for (let c = 0; c < 3; c++) at[4 * place + c] = part(high >> c) << 8 | part(low >> c);
        frame.places[i] = place;
      }
      const put = (v, i) => { at[4 * frame.places[i] + 3] = v; };
      if (meta.palette) for (let i = 0; i < f.n; i++) put(data[offset++], i);
      else plane(f.n, f.channels.length ? f.channels[0].bits : 16).forEach(put);
      frame.at = at;
      frame.planes = [];
    } else {
      if (f.sites === undefined) {
        frame.sites = new Uint16Array(3 * f.n);
        const [w, h] = meta.shape;
        for (let i = 0, last = -1; i < f.n; i++) {
          last += varint() + 1;
          frame.sites[3 * i] = last % w;
          frame.sites[3 * i + 1] = Math.floor(last / w) % h;
          frame.sites[3 * i + 2] = Math.floor(last / w / h);
        }
      } else frame.sites = made[f.sites].sites;
      frame.planes = f.channels.map(c => plane(f.n, c.bits));
    }
    frame.channels = f.channels;
    made.push(frame);
  }
  return made;
}
