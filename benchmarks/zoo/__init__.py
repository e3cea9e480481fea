"""The zoo: encoders with backdoors and honest controls, all made here, to judge the scanner on."""
