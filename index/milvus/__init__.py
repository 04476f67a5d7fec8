"""An index in Milvus: one collection of rows and one of documents for each version.

    NAME                     alias of the current version's rows
    NAME_v000001             its rows: id (primary key), row, vector, cuis, captions, groups, ...
    NAME_v000001_documents   its manifest, concepts and arrays, by revision

A build writes new collections and then lets the alias point to them, so readers never see half of
one. Additions and removals change the rows in place and leave a new revision of the documents.
"""
