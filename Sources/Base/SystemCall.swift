import Glibc

/// The text of an `errno` value in the style of messages: lower case, without a number.
package func describeErrno(_ code: Int32) -> String {
  var buffer = [CChar](repeating: 0, count: 256)
  guard strerror_r(code, &buffer, buffer.count) == 0 else { return "system error \(code)" }
  let text = buffer.withUnsafeBytes { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
  return text.prefix(1).lowercased() + text.dropFirst()
}

/// Runs a system call that returns -1 on failure, again as long as a signal interrupts it.
///
/// - Returns: the call's result, -1 with `errno` set on failure.
func retrying<Result: SignedInteger>(_ call: () -> Result) -> Result {
  while true {
    let result = call()
    if result != -1 || errno != EINTR { return result }
  }
}
