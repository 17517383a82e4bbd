"""Hospital systems: orders in, results out, by HL7 v2, FHIR, DICOM and webhooks."""
