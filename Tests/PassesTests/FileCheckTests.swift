import Testing

@Suite struct FileCheckTests {
  private func passes(_ expectations: String, _ output: String) throws -> Bool {
    let check = try FileCheck(parsing: expectations)
    do {
      try check.verify(output)
      return true
    } catch is FileCheck.Failure {
      return false
    }
  }

  @Test func findsTextInOrder() throws {
    #expect(try passes("// CHECK: b\n// CHECK: c", "a\nb\nx\nc"))
    #expect(try !passes("// CHECK: c\n// CHECK: b", "a\nb\nc"))
    #expect(try passes("// CHECK: a\n// CHECK: b", "a b"))
    #expect(try !passes("// CHECK: ab\n// CHECK: ab", "ab"))
    #expect(try passes("// CHECK: a  b", "a \t b"))
    #expect(try !passes("// CHECK: a.b", "axb"))
  }

  @Test func nextIsTheNextLine() throws {
    #expect(try passes("// CHECK: a\n// CHECK-NEXT: b", "a\nb"))
    #expect(try !passes("// CHECK: a\n// CHECK-NEXT: c", "a\nb\nc"))
    #expect(try !passes("// CHECK: a\n// CHECK-NEXT: b", "a b"))
    #expect(try !passes("// CHECK: a\n// CHECK-NEXT: b", "a"))
  }

  @Test func notIsBetweenMatches() throws {
    #expect(try passes("// CHECK: a\n// CHECK-NOT: x\n// CHECK: b", "x\na\nb\nx"))
    #expect(try !passes("// CHECK: a\n// CHECK-NOT: x\n// CHECK: b", "a\nx\nb"))
    #expect(try !passes("// CHECK: a\n// CHECK-NOT: x", "a\nb\nx"))
    #expect(try !passes("// CHECK-NOT: x", "x"))
    #expect(try !passes("// CHECK: a\n// CHECK-NOT: x\n// CHECK: b", "a x b"))
    #expect(try passes("// CHECK: a\n// CHECK-NOT: x\n// CHECK: b", "x a b x"))
  }

  @Test func labelsDivide() throws {
    let output = "func f\n a\nfunc g\n b"
    #expect(try passes("// CHECK-LABEL: func f\n// CHECK: a\n// CHECK-LABEL: func g\n// CHECK: b", output))
    #expect(try !passes("// CHECK-LABEL: func f\n// CHECK: b\n// CHECK-LABEL: func g", output))
    #expect(try passes("// CHECK-LABEL: func f\n// CHECK-NOT: b\n// CHECK-LABEL: func g", output))
    #expect(try !passes("// CHECK-LABEL: func h", output))
    #expect(try passes("// CHECK-LABEL: func f\n// CHECK-NEXT: a\n// CHECK-NOT: func\n// CHECK-LABEL: func g", output))
    #expect(try passes("// CHECK-LABEL: func f\n// CHECK-NOT: func\n// CHECK: a", output))
    #expect(try !passes("// CHECK-LABEL: func g\n// CHECK-LABEL: func f", output))
  }

  @Test func variablesAndExpressions() throws {
    #expect(try passes("// CHECK: [[X:%[a-z]+]] = 1\n// CHECK: use [[X]]", "%ab = 1\nuse %ab"))
    #expect(try !passes("// CHECK: [[X:%[a-z]+]] = 1\n// CHECK: use [[X]]", "%ab = 1\nuse %cd"))
    #expect(try passes("// CHECK: [[X:[a-z]+]] [[X]]", "ab ab"))
    #expect(try !passes("// CHECK: [[X:[a-z]+]] [[X]]$", "ab cd"))
    #expect(try passes("// CHECK: a{{.*}}b [1, 2]", "a and b [1, 2]"))
    #expect(try !passes("// CHECK: {{^}}b", "a b"))
  }

  @Test func refusesWhatItCannotRead() throws {
    #expect(throws: FileCheck.Failure.self) { try FileCheck(parsing: "// CHECK-SAME: a") }
    #expect(throws: FileCheck.Failure.self) { try FileCheck(parsing: "// CHECK:") }
    #expect(throws: FileCheck.Failure.self) { try FileCheck(parsing: "// CHECK-NEXT: a") }
    #expect(throws: FileCheck.Failure.self) { try FileCheck(parsing: "// CHECK: [[X]]").verify("a") }
    #expect(throws: FileCheck.Failure.self) { try FileCheck(parsing: "// CHECK: {{(}}").verify("a") }
  }
}
