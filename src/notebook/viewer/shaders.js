// The shaders, and the function that compiles them.
const wavemeshShaders = (() => {
  const head = '#version 300 es\nprecision highp float;precision highp int;precision highp usampler2D;\n';
  const light = 'float lit(vec3 n){vec3 v=rot*n;return .55+.45*min(1.,max(0.,dot(v,vec3(-.3,.62,.72))));}\n';
  const common = 'uniform mat4 vp;uniform mat3 rot;uniform vec3 eye,clipLow,clipHigh;uniform vec4 scale;uniform float size,plain;uniform sampler2D ramp;\n';
  const paint = 'vec3 paint(float q){float v=scale.x+q/65534.*(scale.y-scale.x);' +
    'return texture(ramp,vec2(clamp((v-scale.z)/(scale.w-scale.z),0.,1.)*(255./256.)+.5/256.,.5)).rgb;}\n';
  // A voxel's face is drawn as six corners. They read it from a texture: x, y, z, and a number with 13 bits of value and 3 of direction.
  const voxelVS = head + common + light + paint + 'uniform usampler2D faces;uniform float cell;out vec3 color;out vec2 uv;flat out int id;\n' +
    'const vec2 C[6]=vec2[6](vec2(0,0),vec2(1,0),vec2(1,1),vec2(0,0),vec2(1,1),vec2(0,1));\n' +
    'void main(){id=gl_VertexID/6;uv=C[gl_VertexID%6];uvec4 d=texelFetch(faces,ivec2(id&4095,id>>12),0);int f=int(d.w&7u)>>1;uint q=d.w>>3;' +
    'vec3 p,n=vec3(0.);p[f]=float(d.w&1u);p[(f+1)%3]=uv.x;p[(f+2)%3]=uv.y;n[f]=p[f]*2.-1.;vec3 at=(vec3(d.xyz)+.5+(p-.5)*size)*cell;' +
    'if((eye[f]-at[f])*n[f]<=0.){gl_Position=vec4(2.,2.,2.,1.);return;}' +
    'color=(q==8191u?vec3(1.,0.,1.):paint(float(q)*8.))*lit(n);gl_Position=vp*vec4(at,1.);}';
  const number4 = 'if(pick){int i=id+1;o=vec4(float(i&255),float((i>>8)&255),float((i>>16)&255),float((i>>24)&255))/255.;return;}';
  const voxelFS = head + 'in vec3 color;in vec2 uv;flat in int id;uniform float alpha,outline;uniform bool pick;out vec4 o;\n' +
    'void main(){' + number4 +
    'vec2 w=fwidth(uv),d=min(uv,1.-uv)/w;float e=smoothstep(.3,1.3,min(d.x,d.y)),far=smoothstep(.12,.35,max(w.x,w.y));' +
    'o=vec4(color*mix(1.,mix(.5,1.,max(e,far)),outline),alpha);}';
  const meshVS = head + common + light + 'layout(location=0) in vec3 p;layout(location=1) in vec3 n;layout(location=2) in uint q;' +
    'out vec3 at,bary;out float shade,value,odd;flat out int id;void main(){at=p;vec3 v=normalize(n);if(dot(v,eye-p)<0.)v=-v;' +
    'shade=lit(v);odd=q==65535u?1.:0.;value=float(q);int k=gl_VertexID%3;bary=vec3(k==0,k==1,k==2);id=gl_VertexID/3;gl_Position=vp*vec4(p,1.);}';
  const meshFS = head + common + paint + 'in vec3 at,bary;in float shade,value,odd;flat in int id;uniform float alpha,outline;uniform bool pick;out vec4 o;\n' +
    'void main(){if(any(lessThan(at,clipLow))||any(greaterThan(at,clipHigh)))discard;' +
    number4 + 'vec3 color=(plain>0.?vec3(.55,.68,.82):odd>0.?vec3(1.,0.,1.):paint(value))*shade;vec3 d=bary/fwidth(bary);float e=smoothstep(.2,1.2,min(d.x,min(d.y,d.z)));o=vec4(color*mix(1.,mix(.45,1.,e),outline),alpha);}';
  // A point is its cell along x, y and z, and its colour: a value, a class, or 5, 6 and 5 bits of red, green and blue.
  const pointVS = head + common + paint + 'layout(location=0) in uvec4 d;uniform float cell,side;uniform vec3 origin;uniform vec2 cut;uniform int mode;flat out vec3 color;flat out int id;\n' +
    'void main(){vec3 at=origin+vec3(d.xyz)*cell;id=gl_VertexID;float q=float(d.w);bool odd=d.w==65535u;gl_Position=vp*vec4(at,1.);gl_PointSize=side;' +
    'if(any(lessThan(at,clipLow))||any(greaterThan(at,clipHigh))||(mode==0&&(q<cut.x||q>cut.y)&&!(odd&&cut.x<=0.&&cut.y>=65534.)))gl_Position=vec4(2.,2.,2.,1.);' +
    'color=mode==1?texelFetch(ramp,ivec2(int(d.w)&255,0),0).rgb:mode==2?vec3(float(d.w>>11)/31.,float((d.w>>5)&63u)/63.,float(d.w&31u)/31.):odd?vec3(1.,0.,1.):paint(q);}';
  const pointFS = head + 'flat in vec3 color;flat in int id;uniform float alpha;uniform bool pick;out vec4 o;\nvoid main(){' + number4 + 'o=vec4(color,alpha);}';
  const lineVS = head + 'uniform mat4 vp;layout(location=0) in vec3 p;void main(){gl_Position=vp*vec4(p,1.);}';
  const lineFS = head + 'uniform vec4 ink;out vec4 o;void main(){o=ink;}';
  return { mesh: [meshVS, meshFS], points: [pointVS, pointFS], voxels: [voxelVS, voxelFS], line: [lineVS, lineFS] };
})();

function wavemeshProgram(gl, [vs, fs]) {
  const p = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, vs], [gl.FRAGMENT_SHADER, fs]]) {
    const s = gl.createShader(type);
    gl.shaderSource(s, source);
    gl.compileShader(s);
    gl.attachShader(p, s);
  }
  gl.linkProgram(p);
  if (!gl.getProgramParameter(p, gl.LINK_STATUS) && !gl.isContextLost()) {
    throw new Error(gl.getProgramInfoLog(p) + gl.getAttachedShaders(p).map(s => gl.getShaderInfoLog(s)).join(''));
  }
  const u = {};
  for (let i = 0, n = gl.getProgramParameter(p, gl.ACTIVE_UNIFORMS); i < n; i++) {
    const { name } = gl.getActiveUniform(p, i);
    u[name] = gl.getUniformLocation(p, name);
  }
  return { p, u };
}
