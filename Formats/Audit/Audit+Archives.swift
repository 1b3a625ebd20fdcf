import Base

extension Audit {
  /// A zip archive: a PyTorch checkpoint or arrays of NumPy.
  static func archive(_ file: MappedFile, _ report: inout AuditReport) throws {
    report.format = "zip"
    let archive = try ZipArchive(file)
    report.fact("members", archive.members.count)
    if let last = archive.members.map(\.range.upperBound).max(),
      let first = archive.members.map(\.range.lowerBound).min(),
      first > 65536 + 30 + 65536
    {
      report.danger("\(first) bytes before the first of the members, which end at byte \(last)")
    }
    var total = 0
    for member in archive.members {
      let (sum, overflow) = total.addingReportingOverflow(member.size)
      total = overflow ? .max : sum
      if !ContainedFile.isPlainName(member.name.hasSuffix("/") ? String(member.name.dropLast()) : member.name) {
        report.danger("member '\(member.name)' is no plain name inside a folder", at: member.range.lowerBound)
      }
      let lowered = member.name.lowercased()
      if [".py", ".pyc", ".so", ".dll", ".exe", ".sh"].contains(where: { lowered.hasSuffix($0) }) {
        report.danger("member '\(member.name)' is a program", at: member.range.lowerBound)
      }
    }
    if total > 1 << 20, total / 100 > file.size {
      report.danger("the members have \(total) bytes, more than 100 times the archive")
    }
    let pickles = archive.members.filter { $0.name.hasSuffix(".pkl") || $0.name.hasSuffix(".pickle") }
    if !pickles.isEmpty {
      report.format = "pytorch"
      for pickle in pickles {
        guard !pickle.isCompressed else {
          report.danger("'\(pickle.name)' is compressed", at: pickle.range.lowerBound)
          continue
        }
        let reader = ByteReader(
          try file.slice(pickle.range), file: file.path, base: pickle.range.lowerBound)
        var machine = PickleMachine(reader, stringLimit: 1 << 16, textLimit: 8 << 20, listsRefused: true)
        do {
          _ = try machine.run()
        } catch let error as CompileError {
          report.danger(error)
        }
        note(machine.refused ?? [], &report)
      }
      if report.isAccepted {
        let checkpoint = try TorchFile(file, limits: limits)
        report.fact("tensors", checkpoint.tensors.count)
      }
      return
    }
    let arrays = archive.members.filter { $0.name.hasSuffix(".npy") }
    guard !arrays.isEmpty else {
      report.danger("the archive holds neither a pickle of PyTorch nor arrays of NumPy")
      return
    }
    report.format = "npz"
    for member in arrays {
      guard !member.isCompressed else {
        report.notice("'\(member.name)' is compressed and not looked into")
        continue
      }
      try array(try file.slice(member.range), "\(file.path): \(member.name)", &report)
    }
    report.fact("arrays", arrays.count)
  }

  /// The header of a .npy file.
  static func array(_ bytes: UnsafeRawBufferPointer, _ name: String, _ report: inout AuditReport) throws {
    let header = bytes.prefix(1024)
    // 'O' stands for Python objects, which are pickled.
    if let place = header.firstRange(of: Array("'|O".utf8)) ?? header.firstRange(of: Array("'O".utf8)) {
      report.danger("'\(name)' holds pickled Python objects", at: place.lowerBound)
      return
    }
    try NumPyArray.check(npy: bytes, file: name)
  }

  /// A pickle outside of a zip archive: the legacy form of PyTorch, or anything.
  static func pickle(_ file: MappedFile, _ report: inout AuditReport) throws {
    if TorchFile.sniff(file) {
      report.format = "pytorch"
      var machine = PickleMachine(ByteReader(file), stringLimit: 1 << 16, textLimit: 8 << 20, listsRefused: true)
      // Magic number, protocol, system, object, keys.
      for _ in 0..<5 { _ = try machine.run() }
      note(machine.refused ?? [], &report)
      if report.isAccepted { report.fact("tensors", try TorchFile(file, limits: limits).tensors.count) }
      return
    }
    var machine = PickleMachine(ByteReader(file), stringLimit: 1 << 16, textLimit: 8 << 20, listsRefused: true)
    do {
      _ = try machine.run()
    } catch let error as CompileError {
      report.danger(error)
    }
    note(machine.refused ?? [], &report)
    report.danger("this is a pickle, which is no checkpoint of tensors")
  }

  private static func note(_ refused: [(name: String, offset: Int)], _ report: inout AuditReport) {
    var seen: Set<String> = []
    for (name, offset) in refused where seen.insert(name).inserted {
      report.danger("a pickle names '\(name)'", at: offset)
    }
  }
}
