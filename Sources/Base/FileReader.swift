import Glibc

/// Reads the bytes of a mapped file into buffers, for large copies: pages of a mapping cost a fault each, and stay with the
/// process until they are given back.
package final class FileReader: Sendable {
  private let descriptor: Int32

  /// A reader of the file; nil if its path no longer leads to it.
  package init?(_ file: MappedFile) {
    let opened = retrying { open(file.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) }
    guard opened >= 0 else { return nil }
    var status = stat()
    guard fstat(opened, &status) == 0, MappedFile.Identity(status) == file.identity else {
      close(opened)
      return nil
    }
    descriptor = opened
  }

  deinit { close(descriptor) }

  /// Fills `buffer` with the bytes from `offset` on; false if they cannot be read.
  package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) -> Bool {
    var done = 0
    while done < buffer.count {
      let count = retrying {
        pread(descriptor, buffer.baseAddress.map { $0 + done }, buffer.count - done, off_t(offset + done))
      }
      guard count > 0 else { return false }
      done += count
    }
    return true
  }
}
