import Base

/// The directory of a zip file (PKWARE APPNOTE), for .npz files and PyTorch checkpoints: stored and deflated members,
/// zip64, one disk, no encryption.
package struct ZipArchive: Sendable {
  /// One file of the archive.
  package struct Member: Sendable {
    package let name: String
    /// Where the bytes of the member lie in the archive, compressed or not.
    package let range: Range<Int>
    /// Bytes after decompression.
    package let size: Int
    package let isCompressed: Bool
    package let crc32: UInt32
  }

  /// The mapped archive.
  package let file: MappedFile
  /// The members in the order of the directory, names distinct.
  package let members: [Member]

  /// Reads the directory.
  ///
  /// - Throws: `CompileError` if anything in it is out of range, contradicts the local headers or is not supported.
  package init(_ file: MappedFile) throws {
    self.file = file
    let (count, directory) = try Self.findDirectory(file)
    var reader = ByteReader(file)
    try reader.seek(to: directory, "the zip directory")
    // A record of the directory has at least 46 bytes.
    guard count <= reader.remaining / 46 else {
      throw reader.failure("a zip directory of \(count) entries does not fit")
    }
    var members: [Member] = []
    var names: Set<[UInt8]> = []
    members.reserveCapacity(count)
    for _ in 0..<count {
      let member = try Self.readRecord(&reader, file)
      guard names.insert(Array(member.name.utf8)).inserted else {
        throw reader.failure("duplicate zip member '\(member.name)'")
      }
      members.append(member)
    }
    self.members = members
    // Members that share bytes let a small file hold much.
    let order = members.sorted { $0.range.lowerBound < $1.range.lowerBound }
    for (before, after) in zip(order, order.dropFirst()) where before.range.upperBound > after.range.lowerBound {
      throw CompileError(
        .input, "zip members '\(before.name)' and '\(after.name)' share bytes",
        subject: .init(file: file.path, offset: after.range.lowerBound))
    }
  }

  /// The bytes of a member in the mapped file; nil if it is compressed. They are not checked against the checksum.
  package func storedBytes(_ member: Member) throws -> UnsafeRawBufferPointer? {
    member.isCompressed ? nil : try file.slice(member.range)
  }

  /// The bytes of a member, decompressed and checked.
  package func read(_ member: Member) throws -> [UInt8] {
    let raw = try file.slice(member.range)
    let bytes =
      member.isCompressed
      ? try Zlib.inflate(raw, expectedSize: member.size, of: "'\(member.name)' in '\(file.path)'") : Array(raw)
    guard bytes.withUnsafeBytes({ Zlib.crc32($0) }) == member.crc32 else {
      throw CompileError(.input, "wrong checksum of '\(member.name)'", subject: .init(file: file.path))
    }
    return bytes
  }

  private static let endSignature: UInt32 = 0x0605_4B50
  private static let recordSignature: UInt32 = 0x0201_4B50
  private static let localSignature: UInt32 = 0x0403_4B50

  private static func findDirectory(_ file: MappedFile) throws -> (count: Int, offset: Int) {
    let bytes = file.bytes
    func failure(_ message: String) -> CompileError { CompileError(.input, message, subject: .init(file: file.path)) }
    // The end record has 22 bytes and a comment of up to 65535.
    var end = bytes.count - 22
    let lowest = max(0, end - 65535)
    while end >= lowest {
      if bytes.loadUnaligned(fromByteOffset: end, as: UInt32.self).littleEndian == endSignature,
        Int(bytes.loadUnaligned(fromByteOffset: end + 20, as: UInt16.self).littleEndian) == bytes.count - end - 22
      {
        break
      }
      end -= 1
    }
    guard end >= lowest, end >= 0 else { throw failure("the end of the zip directory is missing") }
    var reader = ByteReader(file)
    try reader.seek(to: end + 4)
    let disk = try reader.u16(), directoryDisk = try reader.u16()
    _ = try reader.u16()
    var count = Int(try reader.u16())
    _ = try reader.u32()
    var offset = Int(try reader.u32())
    guard disk == directoryDisk, disk == 0 || disk == 0xFFFF else {
      throw CompileError(.unsupported, "zip files of several parts are not supported", subject: .init(file: file.path))
    }
    if count == 0xFFFF || offset == 0xFFFF_FFFF {
      // The locator of the zip64 end record precedes the end record.
      try reader.seek(to: end - 20, "the zip64 locator")
      guard try reader.u32() == 0x0706_4B50 else { throw reader.failure("the zip64 locator is missing") }
      _ = try reader.u32()
      let record = try reader.size("the offset of the zip64 directory")
      try reader.seek(to: record, "the zip64 directory end")
      guard try reader.u32() == 0x0606_4B50 else { throw reader.failure("the zip64 end record is missing") }
      try reader.skip(8 + 2 + 2 + 4 + 4 + 8)
      count = try reader.size("the number of zip members")
      try reader.skip(8)
      offset = try reader.size("the offset of the zip directory")
    }
    return (count, offset)
  }

  private static func readRecord(_ reader: inout ByteReader, _ file: MappedFile) throws -> Member {
    guard try reader.u32() == recordSignature else { throw reader.failure("no zip directory entry") }
    try reader.skip(4)
    let flags = try reader.u16(), method = try reader.u16()
    try reader.skip(4)
    let crc = try reader.u32()
    var packed = UInt64(try reader.u32()), size = UInt64(try reader.u32())
    let nameLength = Int(try reader.u16()), extraLength = Int(try reader.u16()), commentLength = Int(try reader.u16())
    try reader.skip(2 + 2 + 4)
    var offset = UInt64(try reader.u32())
    let name = try reader.string(nameLength, "the name of a zip member")
    var extra = ByteReader(try reader.bytes(extraLength), file: file.path, base: reader.offset - extraLength)
    while extra.remaining >= 4 {
      let tag = try extra.u16(), length = Int(try extra.u16())
      var field = ByteReader(try extra.bytes(length), file: file.path, base: extra.base + extra.offset - length)
      guard tag == 1 else { continue }
      if size == 0xFFFF_FFFF { size = try field.u64() }
      if packed == 0xFFFF_FFFF { packed = try field.u64() }
      if offset == 0xFFFF_FFFF { offset = try field.u64() }
    }
    try reader.skip(commentLength)

    func unsupported(_ what: String) -> CompileError {
      CompileError(.unsupported, "\(what) of zip member '\(name)' is not supported", subject: .init(file: file.path))
    }
    guard flags & 0x41 == 0 else { throw unsupported("the encryption") }
    guard method == 0 || method == 8 else { throw unsupported("compression method \(method)") }
    guard let size = Int(exactly: size), let packed = Int(exactly: packed), let offset = Int(exactly: offset),
      method == 8 || size == packed
    else { throw reader.failure("contradicting sizes of zip member '\(name)'") }

    var local = ByteReader(file)
    try local.seek(to: offset, "the zip member '\(name)'")
    guard try local.u32() == localSignature else { throw local.failure("no header of zip member '\(name)'") }
    try local.skip(4)
    guard try local.u16() == method else { throw local.failure("contradicting headers of zip member '\(name)'") }
    try local.skip(4 + 4 + 4 + 4)
    let localName = Int(try local.u16()), localExtra = Int(try local.u16())
    guard try local.string(localName, "the name of a zip member").utf8.elementsEqual(name.utf8) else {
      throw local.failure("contradicting names of zip member '\(name)'")
    }
    try local.skip(localExtra)
    let start = local.offset
    try local.skip(packed, "the zip member '\(name)'")
    return Member(
      name: name, range: start..<start + packed, size: size, isCompressed: method == 8, crc32: crc)
  }
}
