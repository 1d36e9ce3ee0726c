//! `cargo image`: see the library.
fn main() -> std::process::ExitCode {
    image::main()
}
