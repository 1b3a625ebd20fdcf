import Base
import Tensors

/// Writes a .npz file array by array, without compression; equal arrays give equal bytes. Archives and members above 4 GiB
/// have the 64-bit form of zip (PKWARE APPNOTE, 4.5.3).
struct NumPyArchiveWriter: ~Copyable {
  private let file: AtomicFile
  private var directory: [UInt8] = []
  private var count = 0

  init(path: String) throws { file = try AtomicFile(path: path) }

  /// Adds the member `name.npy` of a header and data that `write` appends to the file, whose checksum it returns.
  mutating func add(
    _ name: String, header: [UInt8], dataBytes: Int, _ write: (AtomicFile) throws -> UInt32
  ) throws {
    let member = Array((name + ".npy").utf8)
    guard member.count <= 0xFFFF else {
      throw CompileError(
        .input, "an array name of \(member.count) bytes is too long", subject: .init(file: file.path))
    }
    let size = header.count + dataBytes
    let isLong = size >= 0xFFFF_FFFF
    let offset = file.offset
    func record(_ crc: UInt32, local: Bool) -> [UInt8] {
      let farOffset = !local && offset >= 0xFFFF_FFFF
      var extra: [UInt8] = []
      if isLong || farOffset {
        let fields = (isLong ? [UInt64(size), UInt64(size)] : []) + (farOffset ? [UInt64(offset)] : [])
        extra = littleEndian(UInt16(1)) + littleEndian(UInt16(8 * fields.count)) + fields.flatMap { littleEndian($0) }
      }
      // UTF-8 names, stored, 1 January 1980.
      let version: UInt16 = isLong || farOffset ? 45 : 20
      let stated = isLong ? UInt32.max : UInt32(size)
      var bytes = local ? [0x50, 0x4B, 3, 4] : [0x50, 0x4B, 1, 2] + littleEndian(version | 3 << 8)
      bytes += littleEndian(version) + [0, 8, 0, 0, 0, 0, 0x21, 0] + littleEndian(crc) + littleEndian(stated)
      bytes += littleEndian(stated) + littleEndian(UInt16(member.count)) + littleEndian(UInt16(extra.count))
      if !local {
        bytes += [UInt8](repeating: 0, count: 6) + littleEndian(UInt32(0o100644) << 16)
        bytes += littleEndian(farOffset ? UInt32.max : UInt32(offset))
      }
      return bytes + member + extra
    }
    let start = try file.reserve(record(0, local: true).count)
    try file.append(header)
    let crc = Zlib.crc32(
      header.withUnsafeBytes { Zlib.crc32($0) }, followedBy: try write(file), byteCount: dataBytes)
    try record(crc, local: true).withUnsafeBytes { try file.write($0, at: start) }
    directory += record(crc, local: false)
    count += 1
  }

  /// Writes the directory and puts the file in place.
  consuming func commit() throws {
    let start = file.offset
    let isLong = start >= 0xFFFF_FFFF || count >= 0xFFFF
    try file.append(directory)
    if isLong {
      let end = file.offset
      var record: [UInt8] = [0x50, 0x4B, 6, 6] + littleEndian(UInt64(44)) + littleEndian(UInt16(45))
      record += littleEndian(UInt16(45)) + [UInt8](repeating: 0, count: 8)
      record += littleEndian(UInt64(count)) + littleEndian(UInt64(count)) + littleEndian(UInt64(directory.count))
      record += littleEndian(UInt64(start))
      // The locator names the record, on disk 0 of 1.
      record += [0x50, 0x4B, 6, 7, 0, 0, 0, 0] + littleEndian(UInt64(end)) + littleEndian(UInt32(1))
      try file.append(record)
    }
    let entries = littleEndian(count >= 0xFFFF ? UInt16.max : UInt16(count))
    try file.append(
      [0x50, 0x4B, 5, 6, 0, 0, 0, 0] + entries + entries + littleEndian(UInt32(directory.count))
        + littleEndian(start >= 0xFFFF_FFFF ? UInt32.max : UInt32(start)) + [0, 0])
    try file.commit()
  }

  private func littleEndian<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { Array($0) }
  }
}
