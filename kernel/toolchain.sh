# Sourced by the scripts: finds the pinned Rust toolchain, or says how to get it.
# After it, `cargo` and `rustc` are on PATH and are the version that rust-toolchain.toml pins.

pinned_rust=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$root/rust-toolchain.toml")

# The kernel has a target folder of its own, so that it and the library can be compiled at the same time: they share no crate.
kernel_target=${CARGO_TARGET_DIR:-$root/target}/kernel
kernel_cargo() { (cd "$root/kernel" && CARGO_TARGET_DIR=$kernel_target cargo "$@"); }

rust_is_pinned() { [ "$(cd "$root" && rustc --version 2>/dev/null | cut -d' ' -f2)" = "$pinned_rust" ]; }

find_toolchain() {
  [ -d "$HOME/.cargo/bin" ] && case ":$PATH:" in *":$HOME/.cargo/bin:"*) ;; *) PATH="$HOME/.cargo/bin:$PATH" ;; esac
  rust_is_pinned && return
  # A toolchain of another name may be the same version (Linux distributions and offline machines have `stable`).
  if command -v rustup >/dev/null; then
    local name
    for name in $(rustup toolchain list 2>/dev/null | cut -d' ' -f1); do
      if [ "$(rustc "+$name" --version 2>/dev/null | cut -d' ' -f2)" = "$pinned_rust" ]; then
        export RUSTUP_TOOLCHAIN=$name
        return
      fi
    done
  fi
  return 1
}
